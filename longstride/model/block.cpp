#include "longstride/model/block.h"

#include <algorithm>
#include <cmath>

#include "longstride/ops/activation.h"
#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/query_key.h"
#include "longstride/ops/residual.h"
#include "longstride/ops/value_mix.h"

namespace longstride {

namespace {

Tensor values_of(const ModelConfig& config, const Tensor& qkv) {
  return qkv.columns(2 * config.qk(), config.qkv());
}

float scale_of(const ModelConfig& config) { return 1.0f / std::sqrt(static_cast<float>(config.qk_head())); }

// Queries, keys and values are columns of one projection; the attention reads them in place.
AttentionTensors attention_tensors(const BlockCall& call, const BlockActivations& saved) {
  const ModelConfig& config = *call.config;
  const int64_t qk = config.qk();
  const auto by_head = [&](const Tensor& rows) {
    return rows.split_last(config.heads).split_first(call.batch);
  };
  AttentionTensors t;
  t.q = by_head(saved.qkv.columns(0, qk));
  t.k = by_head(saved.qkv.columns(qk, 2 * qk));
  t.v = by_head(values_of(config, saved.qkv));
  t.o = by_head(saved.attended);
  t.lse = saved.lse;
  t.scale = scale_of(config);
  return t;
}

const RankPositions* positions_of(const BlockCall& call) {
  return call.shared != nullptr ? &call.shared->positions() : nullptr;
}

// Rows of this rank's tensors, and the same rows of those that attention works on. Where ranks share sequences these
// have all positions; else both are all rows.
struct Chunk {
  int64_t own_begin, whole_begin, count;
  Tensor own(const Tensor& rows) const { return rows.rows(own_begin, own_begin + count); }
  Tensor whole(const Tensor& rows) const { return rows.rows(whole_begin, whole_begin + count); }
};

template <class RunChunk>
void by_chunks(const BlockCall& call, const Tensor& own_rows, const RunChunk& run_chunk) {
  if (call.shared == nullptr) return run_chunk(Chunk{0, 0, own_rows.shape[0]});
  for (const RankPositions::Chunk& c : call.shared->positions().chunks())
    run_chunk(Chunk{c.own, c.whole, c.count});
}

enum class Run { forward, again };  // again: for the backward pass

void attend(const OpContext& context, const BlockCall& call, const BlockActivations& saved, Run run_of) {
  const AttentionTensors t = attention_tensors(call, saved);
  if (call.shared == nullptr)
    run(context, AttentionForward{*call.attention, t});
  else if (run_of == Run::again)
    call.shared->forward_again(context, call.layer, t, saved.qkv);
  else
    call.shared->forward(context, call.layer, t, saved.qkv);
}

// d_qkv of d_attended.
void attend_backward(const OpContext& context, const BlockCall& call, const BlockActivations& saved,
                     const BlockTemporaries& temporaries) {
  const ModelConfig& config = *call.config;
  const auto by_head = [&](const Tensor& rows) {
    return rows.split_last(config.heads).split_first(call.batch);
  };
  const int64_t qk = config.qk();
  const AttentionGradients gradients{.d_o = by_head(temporaries.d_attended),
                                     .dq = by_head(temporaries.d_qkv.columns(0, qk)),
                                     .dk = by_head(temporaries.d_qkv.columns(qk, 2 * qk)),
                                     .dv = by_head(values_of(config, temporaries.d_qkv))};
  if (call.shared != nullptr)
    call.shared->backward(context, call.layer, attention_tensors(call, saved), gradients, temporaries.d_qkv);
  else
    run(context, AttentionBackward{*call.attention, attention_tensors(call, saved), gradients});
}

// Queries and keys are the first columns of the projection. In the paper's model they are used as they are.
bool changes_queries(const ModelConfig& config) { return config.rotary() || config.qk_norm; }
QueryKey query_key(const BlockCall& call, const BlockActivations& saved, const Chunk& chunk) {
  // A chunk of a shared sequence lies within one; the other rows are those of whole sequences.
  Tensor rotation = call.rotation;
  if (rotation && call.shared != nullptr) {
    const int64_t begin = chunk.own_begin % call.config->context;
    rotation = rotation.rows(begin, begin + chunk.count);
  }
  return {chunk.whole(saved.qkv).columns(0, 2 * call.config->qk()), call.config->heads, rotation,
          saved.reciprocal_rms ? chunk.own(saved.reciprocal_rms) : Tensor{}};
}

// Mixes a block's values with those of the first block, which are kept for the later ones.
void mix_values(const OpContext& context, const BlockCall& call, const BlockActivations& saved,
                const Chunk& chunk) {
  const ModelConfig& config = *call.config;
  if (!config.mixes_values()) return;
  const Tensor values = values_of(config, chunk.whole(saved.qkv)), first = chunk.own(call.values.first);
  if (call.layer > 0)
    return run(context, ValueMixForward{first, static_cast<float>(config.value_residual), values});
  if (first.data != values.data) run(context, ValueMixKeep{values, first});
}
// Turns dv, the gradient of the values that the attention read, into the gradient of the projection's
// values.
void mix_values_backward(const OpContext& context, const BlockCall& call, const Tensor& d_qkv,
                         const Chunk& chunk) {
  const ModelConfig& config = *call.config;
  if (!config.mixes_values()) return;
  const Tensor dv = values_of(config, chunk.whole(d_qkv)), d_first = chunk.own(call.values.d_first);
  if (call.layer == 0) return run(context, ValueMixBackwardFirst{d_first, dv});
  const bool adds = call.layer + 1 < config.layers;
  run(context, ValueMixBackward{static_cast<float>(config.value_residual), adds, dv, d_first});
}

// Convolves LN(mid), in temporaries.unconvolved, into the rows that the feed-forward reads.
void convolve(const OpContext& context, const BlockCall& call, const BlockTemporaries& temporaries,
              const Tensor& convolved) {
  const Tensor& weight = call.parameters->convolution;
  if (call.shared_convolution != nullptr)
    return call.shared_convolution->forward(context, temporaries.unconvolved, weight, convolved);
  run(context, CausalConvolutionForward{temporaries.unconvolved, weight, call.config->context, convolved});
}
// On entry `rows` are those that convolve() read, on return their gradient.
void convolve_backward(const OpContext& context, const BlockCall& call, const Tensor& dy, const Tensor& rows,
                       const Tensor& weight_gradient) {
  const Tensor& weight = call.parameters->convolution;
  if (call.shared_convolution != nullptr)
    return call.shared_convolution->backward(context, dy, weight, rows, weight_gradient);
  run(context, CausalConvolutionBackward{dy, weight, call.config->context, rows, weight_gradient});
}

// Runs the block from LN(x) to the feed-forward's pre-activation. `normed` is LN(x); the result of the
// attention branch replaces it.
void forward_to_up(const OpContext& context, const BlockCall& call, Run run_of, const Tensor& x,
                   const BlockActivations& saved, const BlockTemporaries& temporaries, const Tensor& normed) {
  const BlockParameters& p = *call.parameters;
  by_chunks(call, normed, [&](const Chunk& chunk) {
    run(context, LinearForward{chunk.own(normed), p.qkv_weight, p.qkv_bias, chunk.whole(saved.qkv)});
    if (changes_queries(*call.config)) run(context, QueryKeyForward{query_key(call, saved, chunk)});
    mix_values(context, call, saved, chunk);
  });
  attend(context, call, saved, run_of);
  by_chunks(call, normed, [&](const Chunk& chunk) {
    run(context, LinearForward{chunk.whole(saved.attended), p.projection_weight, p.projection_bias,
                               chunk.own(normed)});
  });
  run_residual(context, positions_of(call),
               ResidualForward{.x = x,
                               .branch = normed,
                               .dropout = call.attention_dropout,
                               .gain = p.norm2_gain,
                               .bias = p.norm2_bias,
                               .epsilon = kNormEpsilon,
                               .y = call.mid,
                               .normed = call.config->convolves() ? temporaries.unconvolved : normed,
                               .mean = saved.mean2,
                               .rstd = saved.rstd2});
  if (call.config->convolves()) convolve(context, call, temporaries, normed);
  run(context, LinearForward{normed, p.up_weight, p.up_bias, saved.up});
}

}  // namespace

BlockActivations BlockActivations::allocate(const ModelConfig& config, int64_t batch, int64_t positions,
                                            DType product, bool mid, Arena& arena) {
  const int64_t rows = batch * config.context, attended_rows = batch * positions, d = config.width;
  BlockActivations a;
  a.mean1 = arena.allocate(DType::f32, {rows});
  a.rstd1 = arena.allocate(DType::f32, {rows});
  a.qkv = arena.allocate(product, {attended_rows, config.qkv()});
  if (config.qk_norm) a.reciprocal_rms = arena.allocate(DType::f32, {rows, 2 * config.heads});
  a.attended = arena.allocate(product, {attended_rows, d});
  a.lse = arena.allocate(DType::f32, {batch, config.heads, positions});
  if (mid) a.mid = arena.allocate(DType::f32, {rows, d});
  a.mean2 = arena.allocate(DType::f32, {rows});
  a.rstd2 = arena.allocate(DType::f32, {rows});
  a.up = arena.allocate(product, {rows, config.ff()});
  return a;
}

BlockTemporaries BlockTemporaries::allocate(const ModelConfig& config, int64_t batch, int64_t positions,
                                            int64_t logit_rows, DType product, bool training, Arena& arena) {
  const int64_t rows = batch * config.context, d = config.width;
  BlockTemporaries t;
  t.branch = arena.allocate(product, {rows, d});
  if (config.convolves()) t.unconvolved = arena.allocate(product, {rows, d});
  if (!training) {
    t.logits = arena.allocate(DType::f32, {logit_rows, kVocabulary});
    return t;
  }
  const int64_t begin = arena.used();
  int64_t end = begin;
  const auto another_use = [&] {
    end = std::max(end, arena.used());
    arena.release_to(begin);
  };
  t.hidden = arena.allocate(product, {rows, config.ff()});
  another_use();
  t.normed_again = arena.allocate(product, {rows, d});
  t.logits = arena.allocate(DType::f32, {logit_rows, kVocabulary});
  another_use();
  t.d_qkv = arena.allocate(product, {batch * positions, config.qkv()});
  t.d_attended = arena.allocate(product, {batch * positions, d});
  arena.release_to(std::max(end, arena.used()));
  return t;
}

void block_forward(const OpContext& context, const BlockCall& call, const Tensor& x,
                   const BlockActivations& saved, const BlockTemporaries& temporaries, const NextNorm& next,
                   const Tensor& y) {
  const BlockParameters& p = *call.parameters;
  forward_to_up(context, call, Run::forward, x, saved, temporaries, temporaries.branch);
  const Tensor& hidden = temporaries.hidden ? temporaries.hidden : saved.up;
  run(context, ActivationForward{saved.up, hidden});
  run(context, LinearForward{hidden, p.down_weight, p.down_bias, temporaries.branch});
  run_residual(context, positions_of(call),
               ResidualForward{.x = call.mid,
                               .branch = temporaries.branch,
                               .dropout = call.feed_forward_dropout,
                               .gain = next.gain,
                               .bias = next.bias,
                               .epsilon = next.epsilon,
                               .y = y,
                               .normed = temporaries.branch,
                               .mean = next.mean,
                               .rstd = next.rstd});
}

void block_recompute(const OpContext& context, const BlockCall& call, const Tensor& x,
                     const BlockActivations& saved, const BlockTemporaries& temporaries) {
  const BlockParameters& p = *call.parameters;
  run(context, LayerNormForward{x, p.norm1_gain, p.norm1_bias, kNormEpsilon, temporaries.normed_again,
                                saved.mean1, saved.rstd1});
  forward_to_up(context, call, Run::again, x, saved, temporaries, temporaries.normed_again);
}

void block_backward(const OpContext& context, const BlockCall& call, const Tensor& x,
                    const BlockActivations& saved, const BlockTemporaries& temporaries,
                    const BlockParameters& gradients, const Dropout* before, const Tensor& dy) {
  const BlockParameters& p = *call.parameters;
  const ModelConfig& config = *call.config;
  const Tensor &branch = temporaries.branch, &d_hidden = temporaries.hidden;

  run(context, LinearBackwardInput{branch, p.down_weight, d_hidden});
  const Tensor& hidden = saved.up;
  run(context, ActivationBackward{d_hidden, saved.up, d_hidden, hidden});
  run(context,
      LinearBackwardWeight{branch, hidden, call.product, gradients.down_weight, gradients.down_bias});
  // The output of the layer norm is still there where it has just been recomputed.
  const Tensor& normed = config.convolves() ? temporaries.unconvolved : branch;
  if (!config.convolves() || saved.mid)
    run(context, LayerNormApply{call.mid, p.norm2_gain, p.norm2_bias, saved.mean2, saved.rstd2, normed});
  if (config.convolves()) convolve(context, call, temporaries, branch);
  run(context, LinearBackwardWeight{d_hidden, branch, call.product, gradients.up_weight, gradients.up_bias});
  run(context, LinearBackwardInput{d_hidden, p.up_weight, branch});
  if (config.convolves()) convolve_backward(context, call, branch, normed, gradients.convolution);

  run_residual(context, positions_of(call),
               ResidualBackward{.dy = normed,
                                .x = call.mid,
                                .gain = p.norm2_gain,
                                .mean = saved.mean2,
                                .rstd = saved.rstd2,
                                .dx = dy,
                                .dgain = gradients.norm2_gain,
                                .dbias = gradients.norm2_bias,
                                .dropout = call.attention_dropout,
                                .dbranch = branch});
  const Tensor &d_attended = temporaries.d_attended, &d_qkv = temporaries.d_qkv;
  by_chunks(call, branch, [&](const Chunk& chunk) {
    run(context, LinearBackwardWeight{chunk.own(branch), chunk.whole(saved.attended), call.product,
                                      gradients.projection_weight, gradients.projection_bias});
    run(context, LinearBackwardInput{chunk.own(branch), p.projection_weight, chunk.whole(d_attended)});
  });
  attend_backward(context, call, saved, temporaries);
  run(context, LayerNormApply{x, p.norm1_gain, p.norm1_bias, saved.mean1, saved.rstd1, branch});
  by_chunks(call, branch, [&](const Chunk& chunk) {
    const Tensor rows = chunk.whole(d_qkv);
    if (changes_queries(config))
      run(context, QueryKeyBackward{query_key(call, saved, chunk), rows.columns(0, 2 * config.qk())});
    mix_values_backward(context, call, d_qkv, chunk);
    run(context, LinearBackwardWeight{rows, chunk.own(branch), call.product, gradients.qkv_weight,
                                      gradients.qkv_bias});
    run(context, LinearBackwardInput{rows, p.qkv_weight, chunk.own(branch)});
  });
  if (before == nullptr)
    return run(context, LayerNormBackward{branch, x, p.norm1_gain, saved.mean1, saved.rstd1, dy,
                                          gradients.norm1_gain, gradients.norm1_bias});
  run_residual(context, positions_of(call),
               ResidualBackward{.dy = branch,
                                .x = x,
                                .gain = p.norm1_gain,
                                .mean = saved.mean1,
                                .rstd = saved.rstd1,
                                .dx = dy,
                                .dgain = gradients.norm1_gain,
                                .dbias = gradients.norm1_bias,
                                .dropout = *before,
                                .dbranch = branch});
}

int64_t block_scratch_bytes(const ModelConfig& config, int64_t batch, DType product, bool training,
                            Device device, const AttentionPlan& attention) {
  const int64_t rows = batch * config.context, d = config.width;
  int64_t bytes = attention_scratch_bytes(device, attention, product, batch, config.heads, config.qk_head(),
                                          config.v_head());
  for (const auto& [out, in] : {std::pair{config.qkv(), d}, {d, d}, {config.ff(), d}, {d, config.ff()}})
    bytes = std::max(bytes, linear_scratch_bytes(device, rows, in, out, product, product));
  if (training) bytes = std::max(bytes, layer_norm_backward_scratch_bytes(device, rows, d));
  if (training && config.convolves())
    bytes = std::max(bytes, causal_convolution_scratch_bytes(device, rows, d));
  return bytes;
}

}  // namespace longstride
