// A model in integers, made of its f32 weights by integer arithmetic, so that the same weights give the same
// integers on every machine. Weights of matrix products have eight bits and a scale for each row; all others are
// numbers in fixed point.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/compress/portable/fixed_point.h"
#include "longstride/model/config.h"
#include "longstride/model/parameters.h"

namespace longstride {

// w[n][k] = values[n * columns + k] * factors[n] * 2^-rights[n].
struct WholeMatrix {
  int64_t rows = 0, columns = 0;
  std::vector<int8_t> values;         // (rows, columns) in [-127, 127]
  std::vector<int32_t> factors;       // (rows) of 16 bits; 0 for a row of zeros
  std::vector<int32_t> rights;        // (rows)
  std::vector<portable::Fixed> bias;  // (rows), or empty
};

struct IntegerNorm {
  std::vector<int64_t> gain;          // (d) in units of 2^-kGainBits
  std::vector<portable::Fixed> bias;  // (d)
};

struct IntegerBlock {
  IntegerNorm norm1, norm2;
  WholeMatrix qkv, projection, up, down;
  std::vector<int64_t> convolution;  // (taps, d) in units of 2^-kGainBits; empty without model.convolution
};

class IntegerModel {
 public:
  static constexpr int kGainBits = 20;
  // The version of the arithmetic. Files name it, because one with other bits would decode them wrongly.
  static constexpr int kVersion = 1;

  // `parameters` are f32 in CPU memory. Throws Error for a weight that is not finite, and for a model that the
  // arithmetic does not cover: more than 2^26 positions, or wider than a config may be.
  IntegerModel(const ModelConfig& config, const ModelParameters& parameters);
  // What the constructor allocates.
  static int64_t bytes(const ModelConfig& config);
  // Throws Error, as the constructor does, for a model that the arithmetic does not cover.
  static void check(const ModelConfig& config);

  const ModelConfig& config() const { return config_; }
  // Slot `position` of a sequence, (d) into x; `previous` is not read at position 0.
  void embed(uint8_t previous, int64_t position, portable::Fixed* x) const;
  const std::vector<IntegerBlock>& blocks() const { return blocks_; }
  const IntegerNorm& final_norm() const { return final_norm_; }
  const WholeMatrix& output() const { return output_; }

 private:
  ModelConfig config_;
  std::vector<int64_t> extents_;  // of the tables of positions
  PositionShift shift_ = PositionShift::before;
  std::vector<portable::Fixed> token_, start_;
  std::vector<std::vector<portable::Fixed>> axes_;
  std::vector<IntegerBlock> blocks_;
  IntegerNorm final_norm_;
  WholeMatrix output_;
};

// The angles of rotary positions (model/rotary.h) for positions 0 .. count - 1: (count, D / 2), row after row.
// Empty if the model has none.
std::vector<portable::Turn> integer_rotation(const ModelConfig& config, int64_t count);

}  // namespace longstride
