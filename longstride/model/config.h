// The shape of a model. One struct lists every field once; TOML, --set, help and checkpoints follow from
// that list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/base/fields.h"
#include "longstride/pattern/written_schedule.h"

namespace longstride {

inline constexpr int64_t kVocabulary = 256;  // every byte is a token

struct ModelConfig {
  int64_t context = 1024;
  int64_t layers = 6;
  int64_t heads = 4;
  int64_t width = 256;
  int64_t qk_width = 0;      // 0: width; the paper's "half-size query and key" is width / 2
  int64_t feed_forward = 0;  // 0: 4 * width; the paper's "half-size" is 2 * width
  WrittenSchedule pattern = "fixed:128,32";
  std::vector<int64_t> position_axes;  // empty: see axes()
  std::string positions = "paper";
  double rotary_base = 0;  // 0: see rotary.h
  bool qk_norm = false;
  double value_residual = 0;
  int64_t convolution = 0;
  std::string init = "paper";

  void fields(FieldList& list);

  // Throws Error naming the field: heads that do not divide the widths, a pattern that does not parse, ...
  void check() const;

  int64_t qk() const { return qk_width > 0 ? qk_width : width; }
  int64_t ff() const { return feed_forward > 0 ? feed_forward : 4 * width; }
  int64_t qk_head() const { return qk() / heads; }
  int64_t v_head() const { return width / heads; }
  int64_t qkv() const { return 2 * qk() + width; }
  const Schedule& schedule() const { return pattern.parsed(); }
  bool rotary() const { return positions == "rotary"; }
  // Whether blocks mix their values with those of the first block. A model of one block has nothing to mix.
  bool mixes_values() const { return value_residual > 0 && layers > 1; }
  // Whether the rows that the feed-forward reads are convolved over the last positions first.
  bool convolves() const { return convolution > 0; }
  // Extents of the positions' axes, slowest first. Without position_axes, rotary positions have one axis;
  // others have a grid whose rows are those of pattern_row().
  std::vector<int64_t> axes() const;
  // Extents of the tables of position embeddings: axes(), or none.
  std::vector<int64_t> position_tables() const { return rotary() ? std::vector<int64_t>{} : axes(); }
  // The first l that the pattern names, or near sqrt(context) if it names none; at most the context.
  int64_t pattern_row() const;
  // The same model for fewer positions: weights, tables and angles are those of this one.
  ModelConfig shortened(int64_t positions) const;
};

}  // namespace longstride
