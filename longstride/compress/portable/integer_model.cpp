#include "longstride/compress/portable/integer_model.h"

#include <bit>
#include <tuple>

#include "longstride/base/check.h"
#include "longstride/base/threads.h"
#include "longstride/model/rotary.h"

namespace longstride {

namespace {

using portable::Fixed;
using portable::fixed_of;

// What sums have room for in 64 bits: an attention's weights; squares, and products of a query and a key;
// products with a weight's row.
constexpr int64_t kMostPositions = int64_t{1} << 26, kMostWidth = int64_t{1} << 20,
                  kMostHidden = int64_t{1} << 22;
constexpr int64_t kMostFactor = int64_t{1} << 28;  // of gains and convolutions: 256, so that products fit

std::vector<int64_t> fixed_tensor(const Tensor& tensor, int fraction = portable::kFraction,
                                  int64_t most = portable::kMost) {
  const float* values = tensor.as<float>();
  std::vector<int64_t> fixed(static_cast<size_t>(tensor.count()));
  for (size_t i = 0; i < fixed.size(); ++i) fixed[i] = fixed_of(values[i], fraction, most);
  return fixed;
}

// One row of a weight. `aligned` is room for as many numbers.
void quantise_row(const float* w, int64_t width, std::vector<int64_t>& aligned, int8_t* values,
                  int32_t* factor, int32_t* right) {
  constexpr int64_t kLargest = 127;
  constexpr int kAlignedBits = 40, kFactorBits = 16;
  // The row as integers of up to 40 bits, by the exponent of the largest.
  int exponent = -1000;
  for (int64_t i = 0; i < width; ++i) {
    const auto bits = std::bit_cast<uint32_t>(w[i]);
    exponent = std::max(exponent, static_cast<int>(bits >> 23 & 0xFF) - 127);
  }
  int64_t largest = 0;
  const int fraction = kAlignedBits - 1 - exponent;
  for (int64_t i = 0; i < width; ++i) {
    aligned[i] = fixed_of(w[i], fraction, int64_t{1} << kAlignedBits);
    largest = std::max(largest, std::abs(aligned[i]));
  }
  *factor = *right = 0;
  std::fill_n(values, width, int8_t{0});
  if (largest == 0) return;
  for (int64_t i = 0; i < width; ++i) {
    const int64_t size = (2 * kLargest * std::abs(aligned[i]) + largest) / (2 * largest);
    values[i] = static_cast<int8_t>(aligned[i] < 0 ? -size : size);
  }
  // largest / 127 in sixteen bits.
  constexpr int kMoreBits = 20;
  const int64_t scale = (largest << kMoreBits) / kLargest;
  const int excess = static_cast<int>(std::bit_width(static_cast<uint64_t>(scale))) - kFactorBits;
  *factor = static_cast<int32_t>(portable::shifted(scale, excess));
  *right = fraction + kMoreBits - excess;
}

WholeMatrix quantise(const Tensor& weight, const Tensor& bias) {
  WholeMatrix matrix;
  matrix.rows = weight.shape[0], matrix.columns = weight.shape[1];
  matrix.values.resize(static_cast<size_t>(matrix.rows * matrix.columns));
  matrix.factors.resize(static_cast<size_t>(matrix.rows));
  matrix.rights.resize(static_cast<size_t>(matrix.rows));
  constexpr int64_t kRows = 16;
  parallel_for((matrix.rows + kRows - 1) / kRows, [&](int64_t piece) {
    std::vector<int64_t> aligned(static_cast<size_t>(matrix.columns));
    for (int64_t n = piece * kRows; n < std::min(matrix.rows, (piece + 1) * kRows); ++n)
      quantise_row(weight.as<float>() + n * weight.stride[0], matrix.columns, aligned,
                   matrix.values.data() + n * matrix.columns, &matrix.factors[n], &matrix.rights[n]);
  });
  if (bias) matrix.bias = fixed_tensor(bias);
  return matrix;
}

IntegerNorm norm_of(const Tensor& gain, const Tensor& bias) {
  return {fixed_tensor(gain, IntegerModel::kGainBits, kMostFactor), fixed_tensor(bias)};
}

}  // namespace

void IntegerModel::check(const ModelConfig& config) {
  LONGSTRIDE_CHECK(config.context <= kMostPositions,
                   "model.context = {}: a portable file needs a model of at most {} positions",
                   config.context, kMostPositions);
  // A config that was read has no larger ones; one that a program made may.
  for (const auto& [name, value, most] : {std::tuple{"width", config.width, kMostWidth},
                                          {"qk_width", config.qk(), kMostWidth},
                                          {"feed_forward", config.ff(), kMostHidden}})
    LONGSTRIDE_CHECK(value >= 1 && value <= most, "model.{} = {}: a portable file needs 1 to {}", name, value,
                     most);
  LONGSTRIDE_CHECK(config.value_residual >= 0 && config.value_residual <= 1,
                   "model.value_residual = {}: a portable file needs 0 to 1", config.value_residual);
}

IntegerModel::IntegerModel(const ModelConfig& config, const ModelParameters& p) : config_(config) {
  check(config);
  extents_ = config.position_tables();
  shift_ = p.embedding.shift;
  token_ = fixed_tensor(p.embedding.token);
  start_ = fixed_tensor(p.embedding.start);
  for (const Tensor& axis : p.embedding.axes) axes_.push_back(fixed_tensor(axis));
  for (const BlockParameters& from : p.blocks) {
    IntegerBlock& block = blocks_.emplace_back();
    block.norm1 = norm_of(from.norm1_gain, from.norm1_bias);
    block.norm2 = norm_of(from.norm2_gain, from.norm2_bias);
    block.qkv = quantise(from.qkv_weight, from.qkv_bias);
    block.projection = quantise(from.projection_weight, from.projection_bias);
    block.up = quantise(from.up_weight, from.up_bias);
    block.down = quantise(from.down_weight, from.down_bias);
    if (from.convolution) block.convolution = fixed_tensor(from.convolution, kGainBits, kMostFactor);
  }
  final_norm_ = norm_of(p.final_gain, p.final_bias);
  output_ = quantise(p.output_weight, {});
}

int64_t IntegerModel::bytes(const ModelConfig& config) {
  int64_t total = 0;
  for (const ParameterSpec& spec : parameter_table(config))
    total += spec.product ? spec.count() + spec.shape[0] * static_cast<int64_t>(2 * sizeof(int32_t))
                          : spec.count() * static_cast<int64_t>(sizeof(int64_t));
  return total;
}

void IntegerModel::embed(uint8_t previous, int64_t position, Fixed* x) const {
  const int64_t d = config_.width;
  std::copy_n(position > 0 ? token_.data() + previous * d : start_.data(), d, x);
  int64_t at = position;
  if (shift_ == PositionShift::after && at-- == 0) return;
  for (size_t axis = extents_.size(); axis-- > 0; at /= extents_[axis]) {
    const Fixed* row = axes_[axis].data() + at % extents_[axis] * d;
    for (int64_t i = 0; i < d; ++i) x[i] = portable::cut(x[i] + row[i]);
  }
}

std::vector<portable::Turn> integer_rotation(const ModelConfig& config, int64_t count) {
  if (!config.rotary()) return {};
  // As RotaryAngles (model/rotary.h) in doubles.
  const std::vector<int64_t> extents = config.axes(), strides = axis_strides(config);
  const int64_t pairs = config.qk_head() / 2, axes = std::ssize(extents);
  std::vector<uint64_t> turns;  // of each pair for a step of its coordinate
  for (int64_t i = 0; i < pairs; ++i) {
    const RotaryPair pair = rotary_pair(config, i);
    turns.push_back(portable::turn_of_power(pair.base, pair.index, pair.count));
  }
  std::vector<portable::Turn> rotation(static_cast<size_t>(count * pairs));
  constexpr int64_t kPositions = 256;
  parallel_for((count + kPositions - 1) / kPositions, [&](int64_t piece) {
    for (int64_t i = piece * kPositions; i < std::min(count, (piece + 1) * kPositions); ++i)
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t axis = pair % axes;
        const auto coordinate = static_cast<uint64_t>(i / strides[axis] % extents[axis]);
        // Whole turns fall off.
        rotation[i * pairs + pair] = portable::turn_by(coordinate * turns[pair]);
      }
  });
  return rotation;
}

}  // namespace longstride
