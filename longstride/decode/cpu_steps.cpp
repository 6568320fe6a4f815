// A step of sampling, by the ops that training uses and a few that only sampling needs. The rows of
// activations are those of the sequences that take part, in their order, so that the others cost nothing.
// Every op works on each row as if it were alone.
#include <algorithm>
#include <cmath>
#include <vector>

#include "longstride/decode/engine.h"
#include "longstride/decode/small_work.h"
#include "longstride/model/block.h"
#include "longstride/model/rotary.h"
#include "longstride/ops/activation.h"
#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/query_key.h"
#include "longstride/ops/value_mix.h"

namespace longstride {

namespace cpu {

namespace {

// Activations of one step.
struct Rows {
  Tensor previous;                     // (M) u8
  Tensor x, normed, attended, branch;  // (M, d)
  Tensor qkv;                          // (M, 2 * qk + d)
  Tensor reciprocal_rms;               // (M, 2 * heads); empty without model.qk_norm
  Tensor first_values;                 // (M, d) of the first block; empty where values are not mixed
  Tensor hidden;                       // (M, ff)
  Tensor mean, rstd;                   // (M)
  Tensor logits;                       // (M, 256)

  static Rows allocate(const ModelConfig& config, int64_t count, Arena& arena) {
    const int64_t d = config.width;
    Rows rows;
    rows.previous = arena.allocate(DType::u8, {count});
    rows.x = arena.allocate(DType::f32, {count, d});
    rows.normed = arena.allocate(DType::f32, {count, d});
    rows.attended = arena.allocate(DType::f32, {count, d});
    rows.branch = arena.allocate(DType::f32, {count, d});
    rows.qkv = arena.allocate(DType::f32, {count, config.qkv()});
    if (config.qk_norm) rows.reciprocal_rms = arena.allocate(DType::f32, {count, 2 * config.heads});
    if (config.mixes_values()) rows.first_values = arena.allocate(DType::f32, {count, d});
    rows.hidden = arena.allocate(DType::f32, {count, config.ff()});
    rows.mean = arena.allocate(DType::f32, {count});
    rows.rstd = arena.allocate(DType::f32, {count});
    rows.logits = arena.allocate(DType::f32, {count, kVocabulary});
    return rows;
  }
  Rows first(int64_t count) const {
    Rows rows = *this;
    for (Tensor* t : {&rows.previous, &rows.x, &rows.normed, &rows.attended, &rows.branch, &rows.qkv,
                      &rows.hidden, &rows.mean, &rows.rstd, &rows.logits})
      *t = t->rows(0, count);
    for (Tensor* t : {&rows.reciprocal_rms, &rows.first_values})
      if (*t) *t = t->rows(0, count);
    return rows;
  }
};

// The memory of a step. Planning and allocating both go through allocate().
struct Workspace {
  Rows rows;
  Tensor queries, attended;  // (streams, qk) and (streams, d), one row for each sequence
  Tensor rotation;           // for QueryKey, for the positions of a sequence; empty if not rotary

  // `config` has as many positions as are decoded.
  static Workspace allocate(const ModelConfig& config, int64_t streams, Arena& arena) {
    Workspace workspace;
    workspace.rows = Rows::allocate(config, streams, arena);
    workspace.queries = arena.allocate(DType::f32, {streams, config.qk()});
    workspace.attended = arena.allocate(DType::f32, {streams, config.width});
    workspace.rotation = allocate_rotation(config, config.context, arena);
    return workspace;
  }
};

// linear_each_row rounds its input to 16 bits where the weights have 16 bits.
int64_t scratch_bytes(const ModelConfig& config, DType product, int64_t streams) {
  if (product == DType::f32) return 0;
  Arena measure = Arena::measuring({});
  measure.allocate(product, {streams, std::max(config.width, config.ff())});
  return measure.peak();
}

void copy_row(const Tensor& from, int64_t from_row, const Tensor& to, int64_t to_row) {
  std::copy_n(from.as<float>() + from_row * from.stride[0], from.shape[1],
              to.as<float>() + to_row * to.stride[0]);
}

class CpuSteps final : public StepEngine {
 public:
  CpuSteps(const EngineParts& parts, const DecoderOptions& options)
      : config_(parts.config),
        parameters_(parts.parameters),
        caches_(parts.caches),
        quantized_(parts.quantized),
        streams_(options.streams),
        weights_(product_weights(config_)) {
    const DType product = parameters_.output_weight.dtype;
    Arena measure = Arena::measuring({});
    const ModelConfig seen = config_.shortened(options.positions);
    Workspace::allocate(seen, streams_, measure);
    arena_ = Arena({}, measure.peak());
    workspace_ = Workspace::allocate(seen, streams_, arena_);
    fill_rotation(seen, workspace_.rotation);
    scratch_ = Arena({}, scratch_bytes(config_, product, streams_));
    context_ = {{}, &scratch_};
    for (std::vector<int64_t>* list : {&sequences_, &places_, &positions_})
      list->reserve(static_cast<size_t>(streams_));
  }

  Tensor step(std::span<const uint8_t> previous, std::span<const int64_t> positions) override {
    sequences_.clear(), places_.clear();
    positions_.assign(positions.begin(), positions.end());
    for (int64_t s = 0; s < streams_; ++s) {
      if (positions[s] < 0) continue;
      if (positions[s] > 0) workspace_.rows.previous.as<uint8_t>()[sequences_.size()] = previous[s];
      sequences_.push_back(s);
      places_.push_back(positions[s]);
    }
    const int64_t count = static_cast<int64_t>(sequences_.size());
    if (count == 0) return workspace_.rows.logits;
    const ThreadLimit limit(too_small_to_share(weights_, count));
    const Rows rows = workspace_.rows.first(count);
    run(context_, EmbeddingOne{rows.previous, places_, parameters_.embedding, rows.x});
    for (int64_t layer = 0; layer < config_.layers; ++layer) block(layer, rows);
    run(context_, LayerNormForward{rows.x, parameters_.final_gain, parameters_.final_bias, kFinalNormEpsilon,
                                   rows.normed, rows.mean, rows.rstd});
    product(rows.normed, parameters_.output_weight, quantized_ ? quantized_->output() : QuantizedMatrix{}, {},
            rows.logits);
    // Moves each row to that of its sequence, which is never an earlier row.
    for (int64_t i = count; i-- > 0;)
      if (sequences_[i] != i) copy_row(workspace_.rows.logits, i, workspace_.rows.logits, sequences_[i]);
    return workspace_.rows.logits;
  }

  void advance(std::span<const Continuation> continuations, int64_t steps, uint8_t* out) override {
    std::vector<uint8_t> previous(continuations.size());
    std::vector<int64_t> positions(continuations.size());
    for (int64_t i = 0; i < steps; ++i) {
      for (int64_t s = 0; s < streams_; ++s) {
        const Continuation& c = continuations[s];
        positions[s] = i < c.count ? c.position + i : kRests;
        previous[s] = i > 0 ? out[s * steps + i - 1] : c.previous;
      }
      const Tensor logits = step(previous, positions);
      for (int64_t s = 0; s < streams_; ++s) {
        const Continuation& c = continuations[s];
        if (i < c.count)
          out[s * steps + i] = draw({logits.as<float>() + s * kVocabulary, size_t{kVocabulary}},
                                    c.draw.sampler, c.draw.stream, c.draw.origin + positions[s]);
      }
    }
  }

 private:
  void product(const Tensor& x, const Tensor& w, const QuantizedMatrix& quantized, const Tensor& b,
               const Tensor& y) const {
    if (quantized.values)
      run(context_, QuantizedLinearForward{x, quantized, b, y});
    else
      run(context_, LinearEachRow{x, w, b, y});
  }

  // The same computation as block_forward for one position of each sequence.
  void block(int64_t layer, const Rows& r) {
    const BlockParameters& p = parameters_.blocks[layer];
    const QuantizedBlock q = quantized_ ? quantized_->blocks()[layer] : QuantizedBlock{};
    const auto no_dropout = Dropout{};

    run(context_, LayerNormForward{r.x, p.norm1_gain, p.norm1_bias, kNormEpsilon, r.normed, r.mean, r.rstd});
    product(r.normed, p.qkv_weight, q.qkv, p.qkv_bias, r.qkv);
    if (config_.rotary() || config_.qk_norm)
      run(context_, QueryKeyAt{{r.qkv.columns(0, 2 * config_.qk()), config_.heads, workspace_.rotation,
                                r.reciprocal_rms},
                               places_});
    if (config_.mixes_values()) mix_values(layer, r);
    attend(caches_.layer(layer), r);
    product(r.attended, p.projection_weight, q.projection, p.projection_bias, r.branch);
    run(context_, DropoutAddForward{r.x, r.branch, no_dropout, r.x});

    run(context_, LayerNormForward{r.x, p.norm2_gain, p.norm2_bias, kNormEpsilon, r.normed, r.mean, r.rstd});
    if (config_.convolves())
      run(context_,
          CausalConvolutionAt{r.normed, p.convolution, sequences_, places_, caches_.recent(layer), r.branch});
    product(config_.convolves() ? r.branch : r.normed, p.up_weight, q.up, p.up_bias, r.hidden);
    run(context_, ActivationForward{r.hidden, r.hidden});
    product(r.hidden, p.down_weight, q.down, p.down_bias, r.branch);
    run(context_, DropoutAddForward{r.x, r.branch, no_dropout, r.x});
  }

  void mix_values(int64_t layer, const Rows& r) {
    const Tensor values = r.qkv.columns(2 * config_.qk(), config_.qkv());
    if (layer == 0) return run(context_, ValueMixKeep{values, r.first_values});
    run(context_, ValueMixForward{r.first_values, static_cast<float>(config_.value_residual), values});
  }

  void attend(const KeyCache& cache, const Rows& r) {
    const int64_t qk = config_.qk(), heads = config_.heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(config_.qk_head()));
    const int64_t count = static_cast<int64_t>(sequences_.size());
    const Tensor queries = r.qkv.columns(0, qk), keys = r.qkv.columns(qk, 2 * qk).split_last(heads),
                 values = r.qkv.columns(2 * qk, config_.qkv()).split_last(heads);
    for (int64_t i = 0; i < count; ++i)
      run(context_, StoreKeys{cache, sequences_[i], places_[i], keys.rows(i, i + 1), values.rows(i, i + 1)});
    if (count == streams_)
      return run(context_, AttentionOne{cache, positions_, queries.split_last(heads), scale,
                                        r.attended.split_last(heads)});
    for (int64_t i = 0; i < count; ++i) copy_row(queries, i, workspace_.queries, sequences_[i]);
    run(context_, AttentionOne{cache, positions_, workspace_.queries.split_last(heads), scale,
                               workspace_.attended.split_last(heads)});
    for (int64_t i = 0; i < count; ++i) copy_row(workspace_.attended, sequences_[i], r.attended, i);
  }

  const ModelConfig config_;
  const ModelParameters parameters_;
  const KeyCaches& caches_;
  const QuantizedParameters* quantized_;  // or null
  int64_t streams_;
  int64_t weights_;  // of all products
  Arena arena_ = Arena::measuring({}), scratch_ = Arena::measuring({});
  Workspace workspace_;
  OpContext context_;
  // Of the present step: the sequences that take part, their positions, and the positions of all sequences.
  std::vector<int64_t> sequences_, places_, positions_;
};

}  // namespace

}  // namespace cpu

template <>
std::unique_ptr<StepEngine> make_steps_on<DeviceKind::cpu>(Device, const EngineParts& parts,
                                                           const DecoderOptions& options) {
  return std::make_unique<cpu::CpuSteps>(parts, options);
}

template <>
int64_t steps_bytes_on<DeviceKind::cpu>(const ModelConfig& config, DType product,
                                        const DecoderOptions& options) {
  Arena measure = Arena::measuring({});
  cpu::Workspace::allocate(config.shortened(options.positions), options.streams, measure);
  return measure.peak() + cpu::scratch_bytes(config, product, options.streams);
}

}  // namespace longstride
