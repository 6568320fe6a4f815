#include "longstride/model/config.h"

#include <algorithm>
#include <cmath>

#include "longstride/base/check.h"
#include "longstride/ops/causal_convolution.h"

namespace longstride {

void ModelConfig::fields(FieldList& list) {
  list.add("context", context, "positions n that the model sees at once, in bytes; 0 = chosen")
      .at_least(0)
      .at_most(1 << 30);
  list.add("layers", layers, "residual blocks; 0 = chosen").at_least(0).at_most(100000);
  list.add("heads", heads, "attention heads; must divide width and qk_width; 0 = chosen")
      .at_least(0)
      .at_most(65536);
  list.add("width", width, "channels d of the residual stream; 0 = chosen").at_least(0).at_most(1 << 20);
  list.add("qk_width", qk_width, "channels of queries and keys, all heads together; 0 = width")
      .at_least(0)
      .at_most(1 << 20);
  list.add("feed_forward", feed_forward, "hidden channels of the feed-forward; 0 = 4 * width")
      .at_least(0)
      .at_most(1 << 22);
  list.add("pattern", pattern,
           "attention pattern, or a cycle of layers such as stride:128,window:128*3; empty = chosen");
  list.add("position_axes", position_axes,
           "extents of the positions' axes, slowest first, as [32, 32, 3]; empty = rows, columns and "
           "channels of the pictures, for other data a grid fitting the pattern, or one axis if rotary")
      .at_least(1);
  list.add("positions", positions,
           "paper: an embedding that belongs to the slot that predicts; released: to its own token, before "
           "the shift; rotary: none, queries and keys turn instead")
      .one_of({"paper", "released", "rotary"});
  list.add("rotary_base", rotary_base,
           "ratio of the fastest to the slowest turn of rotary positions; 0 = 10000, or the context if that "
           "is "
           "more, or with several position_axes the extent of each")
      .at_least(0)
      .at_most(1e12);
  list.add("qk_norm", qk_norm, "queries and keys of each head are divided by their root mean square");
  list.add("value_residual", value_residual,
           "part of the first block's values in those of every later one; below 1, and 0 = none")
      .at_least(0)
      .at_most(1);
  list.add("convolution", convolution,
           "the feed-forward reads a convolution, channel by channel, of the last 4 positions; 0 = none")
      .at_least(0);
  list.add("init", init,
           "weights of standard deviation 0.125 / sqrt(fan-in) (paper) or sqrt(0.125 / fan-in) (released)")
      .one_of({"paper", "released"});
}

void ModelConfig::check() const {
  for (const auto& [name, value] :
       {std::pair{"context", context}, {"layers", layers}, {"heads", heads}, {"width", width}})
    LONGSTRIDE_CHECK(value >= 1, "model.{} = {}, must be at least 1", name, value);
  LONGSTRIDE_CHECK(width % heads == 0, "model.heads = {} does not divide model.width = {}", heads, width);
  LONGSTRIDE_CHECK(qk() % heads == 0, "model.heads = {} does not divide model.qk_width = {}", heads, qk());
  try {
    check_heads(schedule(), heads);
  } catch (const Error& error) {
    fail("model.pattern: {}", error.what());
  }
  LONGSTRIDE_CHECK(
      !rotary() || qk_head() % 2 == 0,
      "model.positions = \"rotary\" turns pairs of channels, but a head of queries has {} (width "
      "or qk_width over heads); make that even",
      qk_head());
  LONGSTRIDE_CHECK(!rotary() || static_cast<int64_t>(axes().size()) <= qk_head() / 2,
                   "model.position_axes has {} axes, but a head of queries has {} pairs of channels to turn",
                   axes().size(), qk_head() / 2);
  LONGSTRIDE_CHECK(rotary_base == 0 || rotary_base >= 1, "model.rotary_base = {}, must be 0, or 1 or more",
                   rotary_base);
  LONGSTRIDE_CHECK(static_cast<float>(value_residual) < 1,
                   "model.value_residual = {}, must be below 1: blocks keep a part of their own values",
                   value_residual);
  LONGSTRIDE_CHECK(convolution == 0 || convolution == kConvolutionTaps,
                   "model.convolution = {}, must be {}, the positions that are convolved, or 0 for none",
                   convolution, kConvolutionTaps);
  int64_t covered = 1;
  for (int64_t extent : axes()) {
    LONGSTRIDE_CHECK(extent <= context,
                     "model.position_axes has an extent of {}, more than model.context = {}", extent,
                     context);
    covered *= extent;
    if (covered >= context) covered = context;
  }
  LONGSTRIDE_CHECK(covered >= context, "model.position_axes cover {} positions, but model.context = {}",
                   covered, context);
}

std::vector<int64_t> ModelConfig::axes() const {
  if (!position_axes.empty()) return position_axes;
  if (rotary()) return {context};
  const int64_t row = pattern_row();
  return {(context + row - 1) / row, row};
}

int64_t ModelConfig::pattern_row() const {
  int64_t row = 0;
  for (const LayerPattern& layer : schedule().cycle)
    for (const Pattern& pattern : layer.groups)
      for (int t = 0; t < pattern.count; ++t) {
        const TermKind kind = pattern.terms[t].kind;
        if (row == 0 && kind != TermKind::dense && kind != TermKind::prefix) row = pattern.terms[t].size;
      }
  if (row == 0) row = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(context))));
  return std::min(row, context);
}

ModelConfig ModelConfig::shortened(int64_t positions_seen) const {
  ModelConfig shorter = *this;
  shorter.position_axes = axes();
  shorter.context = positions_seen;
  return shorter;
}

}  // namespace longstride
