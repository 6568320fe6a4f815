// The whole model as scalar loops in any precision T. The fast model is compared with it. Written from the
// formulas of paper section 5.2 and the contracts of the ops; attention is defined by Pattern::allows alone.
//
//   H = embed(tokens);  for each block:  mid = H + drop(W_p attention(LN(H)) + b_p)
//                                        H   = mid + drop(W_2 f(W_1 LN(mid) + b_1) + b_2)
//   where the attention reads, with model.value_residual, values mixed with those of the first block
//   and W_1, with model.convolution, a convolution of LN(mid) over the last positions
//   losses = cross_entropy(LN(H) W_out^T, tokens)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "longstride/model/config.h"
#include "longstride/model/parameters.h"
#include "longstride/model/rotary.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/query_key.h"
#include "longstride/ops/reference/activation.h"
#include "longstride/ops/reference/attention.h"
#include "longstride/ops/reference/causal_convolution.h"
#include "longstride/ops/reference/cross_entropy.h"
#include "longstride/ops/reference/dropout.h"
#include "longstride/ops/reference/embedding.h"
#include "longstride/ops/reference/layer_norm.h"
#include "longstride/ops/reference/linear.h"
#include "longstride/ops/reference/query_key.h"
#include "longstride/ops/reference/value_mix.h"

namespace longstride::reference {

// One vector for each parameter, in the order of parameter_table(config).
template <class T>
using Parameters = std::vector<std::vector<T>>;

template <class T>
Parameters<T> zero_parameters(const ModelConfig& config) {
  Parameters<T> zeros;
  for (const ParameterSpec& spec : parameter_table(config)) zeros.emplace_back(spec.count(), T(0));
  return zeros;
}

// The settings of a run besides weights and tokens.
struct ModelRun {
  int64_t batch = 1;
  double dropout = 0;
  uint64_t seed = 0;
  uint32_t step = 0;
  // Values on a branch, their gradients, and both factors of every matrix product (those of the attention
  // included) are rounded to this type, as a model with such products does; f32: not rounded.
  DType products = DType::f32;
  int64_t first_sequence = 0;  // of the batch, where the run takes a part of it
};

template <class T>
class Model {
 public:
  // `parameters` must outlive the model.
  Model(const ModelConfig& config, const Parameters<T>& parameters, const ModelRun& run)
      : config_(config),
        angles_(config),
        schedule_(config.schedule()),
        tables_(config.position_tables()),
        parameters_(parameters),
        run_(run),
        rows_(run.batch * config.context) {}

  // (B * N) losses in nats of tokens (B, N), each given the ones before it.
  std::vector<T> forward(const std::vector<uint8_t>& tokens) {
    Vector x(rows_ * config_.width);
    EmbeddingTables<T> tables = embedding_of(parameters_);
    embedding_forward<T>(tokens.data(), tables, run_.batch, config_.context, x.data());
    blocks_.clear();
    for (int64_t layer = 0; layer < config_.layers; ++layer) x = block_forward(layer, std::move(x));
    last_ = std::move(x);
    final_ = norm_forward(last_, final_gain(), kFinalEpsilon);
    logits_ = product(final_.y, output_weight());
    Vector losses(rows_);
    cross_entropy<T>(logits_.data(), tokens.data(), rows_, kVocabulary, T(0), losses.data(), nullptr);
    return losses;
  }

  // Gradients of `scale` times the sum of the losses; call after forward with the same tokens.
  Parameters<T> backward(const std::vector<uint8_t>& tokens, T scale) {
    Parameters<T> gradients = zero_parameters<T>(config_);
    Vector losses(rows_), dlogits(logits_.size());
    cross_entropy<T>(logits_.data(), tokens.data(), rows_, kVocabulary, scale, losses.data(), dlogits.data());
    Vector dx(last_.size(), T(0));
    norm_backward(linear_backward(dlogits, final_.y, output_weight(), gradients), last_, final_, final_gain(),
                  dx, gradients);
    d_first_values_.assign(rows_ * config_.width, T(0));
    for (int64_t layer = config_.layers - 1; layer >= 0; --layer) block_backward(layer, dx, gradients);
    EmbeddingTables<T> tables = embedding_of(gradients);
    embedding_backward<T>(tokens.data(), dx.data(), tables, run_.batch, config_.context);
    gradients[0] = tables.token, gradients[1] = tables.start;
    std::copy(tables.axes.begin(), tables.axes.end(), gradients.begin() + 2);
    return gradients;
  }

  // (B * N, 256), after forward.
  const std::vector<T>& logits() const { return logits_; }
  // (B * N, 2 * qk + d): queries, keys and values of a layer as the attention reads them, after forward.
  const std::vector<T>& qkv(int64_t layer) const { return blocks_[layer].qkv; }

 private:
  using Vector = std::vector<T>;

  static constexpr double kBlockEpsilon = 1e-5, kFinalEpsilon = 1e-6;

  // Where parameters stand in the table: gains and weights by name, each followed by its bias.
  enum InBlock { kNorm1 = 0, kQkv = 2, kProjection = 4, kNorm2 = 6, kUp = 8, kDown = 10, kInBlock = 12 };
  size_t first_block() const { return 2 + tables_.size(); }
  size_t at(int64_t layer, InBlock which) const { return first_block() + layer * kInBlock + which; }
  size_t final_gain() const { return at(config_.layers, kNorm1); }
  size_t output_weight() const { return final_gain() + 2; }
  size_t convolution(int64_t layer) const { return output_weight() + 1 + layer; }

  struct Norm {
    Vector y, mean, rstd;
  };
  struct Block {
    Vector x;
    Norm norm1;
    Vector qkv, attended, lse, mid;
    Vector reciprocal_rms;  // (rows, 2 heads)
    Norm norm2;
    Vector convolved;  // or empty
    Vector up, hidden;
    const Vector& to_up() const { return convolved.empty() ? norm2.y : convolved; }
  };

  Vector block_forward(int64_t layer, Vector x) {
    Block& b = blocks_.emplace_back();
    b.x = std::move(x);
    b.norm1 = norm_forward(b.x, at(layer, kNorm1), kBlockEpsilon);
    b.qkv = linear(b.norm1.y, at(layer, kQkv));
    if (config_.rotary() || config_.qk_norm) {
      change_queries(b);
      b.qkv = stored(std::move(b.qkv));
    }
    if (layer > 0 && config_.mixes_values()) {
      mix_values(b);
      b.qkv = stored(std::move(b.qkv));
    }
    b.attended.resize(rows_ * config_.width);
    b.lse.resize(rows_ * config_.heads);
    attention_forward<T>(schedule_.layer(layer), score_scale(), queries(b.qkv), keys(b.qkv), values(b.qkv),
                         by_head(b.attended), by_query(b.lse), [this](T weight) { return stored(weight); });
    b.attended = stored(std::move(b.attended));
    b.mid = add_dropped(b.x, linear(b.attended, at(layer, kProjection)), dropout(layer, 0));

    b.norm2 = norm_forward(b.mid, at(layer, kNorm2), kBlockEpsilon);
    if (config_.convolves()) {
      b.convolved.resize(b.norm2.y.size());
      causal_convolution_forward(b.norm2.y.data(), parameters_[convolution(layer)].data(),
                                 config_.convolution, run_.batch, config_.context, config_.width,
                                 b.convolved.data());
      b.convolved = stored(std::move(b.convolved));
    }
    b.up = linear(b.to_up(), at(layer, kUp));
    b.hidden.resize(b.up.size());
    activation_forward<T>(b.up.data(), count(b.up), b.hidden.data());
    b.hidden = stored(std::move(b.hidden));
    return add_dropped(b.mid, linear(b.hidden, at(layer, kDown)), dropout(layer, 1));
  }

  // On entry dx is the gradient of the block's output, on return that of its input.
  void block_backward(int64_t layer, Vector& dx, Parameters<T>& gradients) {
    Block& b = blocks_[layer];
    Vector dhidden = linear_backward(dropped(dx, dropout(layer, 1)), b.hidden, at(layer, kDown), gradients);
    Vector dup(dhidden.size());
    activation_backward<T>(dhidden.data(), b.up.data(), count(dup), dup.data());
    dup = stored(std::move(dup));
    Vector dnorm2 = linear_backward(dup, b.to_up(), at(layer, kUp), gradients);
    if (config_.convolves()) dnorm2 = convolution_backward(layer, dnorm2, gradients);
    norm_backward(dnorm2, b.mid, b.norm2, at(layer, kNorm2), dx, gradients);

    Vector dattended =
        linear_backward(dropped(dx, dropout(layer, 0)), b.attended, at(layer, kProjection), gradients);
    Vector dqkv(b.qkv.size());
    attention_backward<T>(schedule_.layer(layer), score_scale(), queries(b.qkv), keys(b.qkv), values(b.qkv),
                          by_head(b.attended), by_query(b.lse), by_head(dattended), queries(dqkv), keys(dqkv),
                          values(dqkv), [this](T value) { return stored(value); });
    dqkv = stored(std::move(dqkv));
    if (config_.rotary() || config_.qk_norm) {
      change_queries_back(b, dqkv);
      dqkv = stored(std::move(dqkv));
    }
    if (config_.mixes_values()) {
      mix_values_back(layer, dqkv);
      dqkv = stored(std::move(dqkv));
    }
    norm_backward(linear_backward(dqkv, b.norm1.y, at(layer, kQkv), gradients), b.x, b.norm1,
                  at(layer, kNorm1), dx, gradients);
  }

  // Calls action(row, head, channels of rows) for queries and keys of every position.
  template <class Action>
  void for_queries_and_keys(const Action& action) const {
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t head = 0; head < 2 * config_.heads; ++head)
        action(row, head, row * config_.qkv() + head * config_.qk_head());
  }
  void turn(T* x, int64_t row, bool back) const {
    if (!config_.rotary()) return;
    std::vector<double> cosines, sines;
    for (int64_t pair = 0; pair < config_.qk_head() / 2; ++pair) {
      cosines.push_back(std::cos(angles_(row % config_.context, pair)));
      sines.push_back(std::sin(angles_(row % config_.context, pair)));
    }
    rotate(x, config_.qk_head(), cosines.data(), sines.data(), back);
  }
  void change_queries(Block& b) const {
    b.reciprocal_rms.assign(rows_ * 2 * config_.heads, T(1));
    for_queries_and_keys([&](int64_t row, int64_t head, int64_t at) {
      T* const x = b.qkv.data() + at;
      if (config_.qk_norm)
        b.reciprocal_rms[row * 2 * config_.heads + head] =
            head_norm_forward(x, config_.qk_head(), T(static_cast<double>(kQueryKeyEpsilon)), x);
      turn(x, row, false);
    });
  }
  void change_queries_back(const Block& b, Vector& dqkv) const {
    for_queries_and_keys([&](int64_t row, int64_t head, int64_t at) {
      T* const dx = dqkv.data() + at;
      turn(dx, row, true);
      if (!config_.qk_norm) return;
      Vector y(b.qkv.begin() + at, b.qkv.begin() + at + config_.qk_head());
      turn(y.data(), row, true);
      head_norm_backward(dx, y.data(), b.reciprocal_rms[row * 2 * config_.heads + head], config_.qk_head(),
                         dx);
    });
  }

  // Where the values of a position begin: `width` elements in its row of qkv.
  int64_t values_at(int64_t row) const { return row * config_.qkv() + 2 * config_.qk(); }
  T value_share() const { return T(config_.value_residual); }
  void mix_values(Block& b) const {
    for (int64_t row = 0; row < rows_; ++row)
      value_mix_forward(blocks_[0].qkv.data() + values_at(row), value_share(), config_.width,
                        b.qkv.data() + values_at(row));
  }
  // Later blocks add up the gradient of the first block's values.
  void mix_values_back(int64_t layer, Vector& dqkv) {
    for (int64_t row = 0; row < rows_; ++row) {
      T* const dv = dqkv.data() + values_at(row);
      T* const d_first = d_first_values_.data() + row * config_.width;
      if (layer > 0) {
        value_mix_backward(value_share(), config_.width, dv, d_first);
      } else {
        for (int64_t i = 0; i < config_.width; ++i) dv[i] += d_first[i];
      }
    }
  }

  Vector convolution_backward(int64_t layer, const Vector& dy, Parameters<T>& gradients) const {
    Vector dx(dy.size());
    causal_convolution_backward(
        dy.data(), blocks_[layer].norm2.y.data(), parameters_[convolution(layer)].data(), config_.convolution,
        run_.batch, config_.context, config_.width, dx.data(), gradients[convolution(layer)].data());
    return stored(std::move(dx));
  }

  // The parts of a block over all rows, as calls of the reference ops.

  static int64_t count(const Vector& values) { return static_cast<int64_t>(values.size()); }

  Norm norm_forward(const Vector& x, size_t gain, double epsilon) const {
    Norm n{Vector(x.size()), Vector(rows_), Vector(rows_)};
    layer_norm_forward<T>(x.data(), parameters_[gain].data(), parameters_[gain + 1].data(), T(epsilon), rows_,
                          config_.width, n.y.data(), n.mean.data(), n.rstd.data());
    n.y = stored(std::move(n.y));
    return n;
  }
  // Adds to dx.
  void norm_backward(const Vector& dy, const Vector& x, const Norm& n, size_t gain, Vector& dx,
                     Parameters<T>& gradients) const {
    layer_norm_backward<T>(dy.data(), x.data(), parameters_[gain].data(), n.mean.data(), n.rstd.data(), rows_,
                           config_.width, dx.data(), gradients[gain].data(), gradients[gain + 1].data());
  }

  // A value as a branch or a product holds it: rounded, if the run says so.
  T stored(T value) const {
    if constexpr (std::is_floating_point_v<T>) {
      if (run_.products == DType::bf16)
        return static_cast<T>(static_cast<float>(Bf16(static_cast<float>(value))));
      if (run_.products == DType::f16)
        return static_cast<T>(static_cast<float>(F16(static_cast<float>(value))));
    }
    return value;
  }
  Vector stored(Vector values) const {
    for (T& value : values) value = stored(value);
    return values;
  }
  // The output matrix alone has no bias.
  bool has_bias(size_t weight) const { return weight != output_weight(); }

  // Not rounded: the logits.
  Vector product(const Vector& x, size_t weight) const {
    const int64_t in = count(x) / rows_, out = count(parameters_[weight]) / in;
    Vector y(rows_ * out);
    linear_forward<T>(x.data(), stored(parameters_[weight]).data(),
                      has_bias(weight) ? parameters_[weight + 1].data() : nullptr, rows_, in, out, y.data());
    return y;
  }
  Vector linear(const Vector& x, size_t weight) const { return stored(product(x, weight)); }
  // Returns the gradient of x.
  Vector linear_backward(const Vector& dy, const Vector& x, size_t weight, Parameters<T>& gradients) const {
    const int64_t in = count(x) / rows_, out = count(dy) / rows_;
    const Vector dy_factor = stored(dy);
    linear_backward_weight<T>(dy_factor.data(), x.data(), rows_, in, out, gradients[weight].data());
    if (has_bias(weight)) linear_backward_bias<T>(dy_factor.data(), rows_, out, gradients[weight + 1].data());
    Vector dx(x.size());
    linear_backward_input<T>(dy_factor.data(), stored(parameters_[weight]).data(), rows_, in, out, dx.data());
    return stored(std::move(dx));
  }

  // Dropout number `site` of a layer: 0 after the attention, 1 after the feed-forward.
  Dropout dropout(int64_t layer, uint32_t site) const {
    return {{run_.seed, random_stream::kDropout + 2 * static_cast<uint32_t>(layer) + site, run_.step},
            run_.dropout,
            nullptr,
            run_.first_sequence * config_.context * config_.width};
  }
  static Vector add_dropped(const Vector& x, const Vector& branch, const Dropout& dropout) {
    Vector y(x.size());
    dropout_add_forward<T>(x.data(), branch.data(), dropout, count(x), y.data());
    return y;
  }
  static Vector dropped(const Vector& dy, const Dropout& dropout) {
    Vector dbranch(dy.size());
    dropout_backward<T>(dy.data(), dropout, count(dy), dbranch.data());
    return dbranch;
  }

  EmbeddingTables<T> embedding_of(const Parameters<T>& parameters) const {
    EmbeddingTables<T> tables;
    tables.width = config_.width;
    tables.token = parameters[0], tables.start = parameters[1];
    tables.extents = tables_;
    tables.axes.assign(parameters.begin() + 2, parameters.begin() + 2 + static_cast<int64_t>(tables_.size()));
    tables.shift = config_.positions == "paper" ? PositionShift::before : PositionShift::after;
    return tables;
  }

  // `width` columns of rows (B * N, row_width) from `first` on, as (B, N, H, width / H).
  View<T, 4> heads_of(Vector& rows, int64_t row_width, int64_t first, int64_t width) const {
    const int64_t n = config_.context, head = width / config_.heads;
    return {rows.data() + first, {run_.batch, n, config_.heads, head}, {n * row_width, row_width, head, 1}};
  }
  View<T, 4> queries(Vector& qkv) const { return heads_of(qkv, config_.qkv(), 0, config_.qk()); }
  View<T, 4> keys(Vector& qkv) const { return heads_of(qkv, config_.qkv(), config_.qk(), config_.qk()); }
  View<T, 4> values(Vector& qkv) const {
    return heads_of(qkv, config_.qkv(), 2 * config_.qk(), config_.width);
  }
  View<T, 4> by_head(Vector& attended) const { return heads_of(attended, config_.width, 0, config_.width); }
  View<T, 3> by_query(Vector& lse) const {
    const int64_t n = config_.context, heads = config_.heads;
    return {lse.data(), {run_.batch, heads, n}, {heads * n, n, 1}};
  }
  T score_scale() const {
    using std::sqrt;
    return T(1) / sqrt(T(static_cast<double>(config_.qk_head())));
  }

  ModelConfig config_;
  RotaryAngles angles_;
  Schedule schedule_;
  std::vector<int64_t> tables_;
  const Parameters<T>& parameters_;
  ModelRun run_;
  int64_t rows_;
  std::vector<Block> blocks_;
  Vector last_, logits_;
  Vector d_first_values_;  // (rows, width)
  Norm final_;
};

}  // namespace longstride::reference
