#include "longstride/model/block.h"

#include <algorithm>
#include <cmath>

#include "longstride/ops/activation.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/residual.h"

namespace longstride {

namespace {

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
  t.v = by_head(saved.qkv.columns(2 * qk, config.qkv()));
  t.o = by_head(saved.attended);
  t.lse = saved.lse;
  t.scale = 1.0f / std::sqrt(static_cast<float>(config.qk_head()));
  return t;
}

}  // namespace

BlockActivations BlockActivations::allocate(const ModelConfig& config, int64_t batch, DType product,
                                            Arena& arena) {
  const int64_t rows = batch * config.context, d = config.width;
  BlockActivations a;
  a.mean1 = arena.allocate(DType::f32, {rows});
  a.rstd1 = arena.allocate(DType::f32, {rows});
  a.qkv = arena.allocate(product, {rows, config.qkv()});
  a.attended = arena.allocate(product, {rows, d});
  a.lse = arena.allocate(DType::f32, {batch, config.heads, config.context});
  a.mid = arena.allocate(DType::f32, {rows, d});
  a.mean2 = arena.allocate(DType::f32, {rows});
  a.rstd2 = arena.allocate(DType::f32, {rows});
  a.up = arena.allocate(product, {rows, config.ff()});
  return a;
}

BlockTemporaries BlockTemporaries::allocate(const ModelConfig& config, int64_t batch, DType product,
                                            bool training, Arena& arena) {
  const int64_t rows = batch * config.context, d = config.width;
  BlockTemporaries t;
  t.normed = arena.allocate(product, {rows, d});
  t.hidden = arena.allocate(product, {rows, config.ff()});
  if (!training) return t;
  t.d_hidden = arena.allocate(product, {rows, config.ff()});
  t.d_branch = arena.allocate(product, {rows, d});
  t.d_qkv = arena.allocate(product, {rows, config.qkv()});
  return t;
}

void block_forward(const OpContext& context, const BlockCall& call, const Tensor& x,
                   const BlockActivations& saved, const BlockTemporaries& room, const Tensor& y) {
  const BlockParameters& p = *call.parameters;
  // What a branch ends in takes the place of what it began with.
  const Tensor& branch = room.normed;
  layer_norm_forward(context, x, p.norm1_gain, p.norm1_bias, kNormEpsilon, room.normed, saved.mean1,
                     saved.rstd1);
  linear_forward(context, room.normed, p.qkv_weight, p.qkv_bias, saved.qkv);
  attention_forward(context, *call.attention, attention_tensors(call, saved));
  linear_forward(context, saved.attended, p.projection_weight, p.projection_bias, branch);

  residual_forward(context, {.x = x,
                             .branch = branch,
                             .dropout = call.attention_dropout,
                             .gain = p.norm2_gain,
                             .bias = p.norm2_bias,
                             .epsilon = kNormEpsilon,
                             .y = saved.mid,
                             .normed = room.normed,
                             .mean = saved.mean2,
                             .rstd = saved.rstd2});
  linear_forward(context, room.normed, p.up_weight, p.up_bias, saved.up);
  if (!y) return;
  activation_forward(context, saved.up, room.hidden);
  linear_forward(context, room.hidden, p.down_weight, p.down_bias, branch);
  dropout_add_forward(context, saved.mid, branch, call.feed_forward_dropout, y);
}

void block_backward(const OpContext& context, const BlockCall& call, const Tensor& x,
                    const BlockActivations& saved, const BlockTemporaries& room,
                    const BlockParameters& gradients, const Tensor& dy) {
  const BlockParameters& p = *call.parameters;
  const ModelConfig& config = *call.config;

  dropout_backward(context, dy, call.feed_forward_dropout, room.d_branch);
  linear_backward_input(context, room.d_branch, p.down_weight, room.d_hidden);
  activation_backward(context, room.d_hidden, saved.up, room.d_hidden, room.hidden);
  linear_backward_weight(context, room.d_branch, room.hidden, call.product, gradients.down_weight,
                         gradients.down_bias);
  layer_norm_apply(context, saved.mid, p.norm2_gain, p.norm2_bias, saved.mean2, saved.rstd2, room.normed);
  linear_backward_weight(context, room.d_hidden, room.normed, call.product, gradients.up_weight,
                         gradients.up_bias);
  linear_backward_input(context, room.d_hidden, p.up_weight, room.d_branch);

  residual_backward(context, {.dy = room.d_branch,
                              .x = saved.mid,
                              .gain = p.norm2_gain,
                              .mean = saved.mean2,
                              .rstd = saved.rstd2,
                              .dx = dy,
                              .dgain = gradients.norm2_gain,
                              .dbias = gradients.norm2_bias,
                              .dropout = call.attention_dropout,
                              .dbranch = room.d_branch});
  linear_backward_weight(context, room.d_branch, saved.attended, call.product, gradients.projection_weight,
                         gradients.projection_bias);
  const Tensor& d_attended = room.normed;
  linear_backward_input(context, room.d_branch, p.projection_weight, d_attended);
  const auto by_head = [&](const Tensor& rows) {
    return rows.split_last(config.heads).split_first(call.batch);
  };
  const int64_t qk = config.qk();
  attention_backward(context, *call.attention, attention_tensors(call, saved),
                     {.d_o = by_head(d_attended),
                      .dq = by_head(room.d_qkv.columns(0, qk)),
                      .dk = by_head(room.d_qkv.columns(qk, 2 * qk)),
                      .dv = by_head(room.d_qkv.columns(2 * qk, config.qkv()))});
  layer_norm_apply(context, x, p.norm1_gain, p.norm1_bias, saved.mean1, saved.rstd1, room.normed);
  linear_backward_weight(context, room.d_qkv, room.normed, call.product, gradients.qkv_weight,
                         gradients.qkv_bias);
  linear_backward_input(context, room.d_qkv, p.qkv_weight, room.d_branch);
  layer_norm_backward(context, room.d_branch, x, p.norm1_gain, saved.mean1, saved.rstd1, dy,
                      gradients.norm1_gain, gradients.norm1_bias);
}

int64_t block_scratch_bytes(const ModelConfig& config, int64_t batch, DType product, bool training,
                            Device device, const AttentionPlan& attention) {
  const int64_t rows = batch * config.context, d = config.width;
  int64_t bytes =
      attention_scratch_bytes(device, attention, batch, config.heads, config.qk_head(), config.v_head());
  for (const auto& [out, in] : {std::pair{config.qkv(), d}, {d, d}, {config.ff(), d}, {d, config.ff()}})
    bytes = std::max(bytes, linear_scratch_bytes(device, rows, in, out, product, product));
  if (training) bytes = std::max(bytes, layer_norm_backward_scratch_bytes(device, rows, d));
  return bytes;
}

}  // namespace longstride
