// The only place that chooses an implementation by device. Arguments are checked here, once for every device.
#include <algorithm>
#include <cmath>

#include "longstride/ops/activation.h"
#include "longstride/ops/adam.h"
#include "longstride/ops/arguments.h"
#include "longstride/ops/cpu/ops.h"
#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/cuda/ops.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/embedding.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/profile.h"
#include "longstride/ops/quantized_linear.h"
#include "longstride/ops/residual.h"

namespace longstride {

namespace {

// Of the product of a matrix with one that gives `columns` columns; `bytes` of all operands.
OpWork product_work(const Tensor& matrix, int64_t columns, int64_t bytes) {
  return {bytes, 2.0 * static_cast<double>(matrix.count()) * static_cast<double>(columns)};
}

void check_dropout(const char* op, const Dropout& dropout) {
  LONGSTRIDE_CHECK(dropout.probability >= 0 && dropout.probability < 1 && dropout.threshold() < 65536,
                   "{}: probability is {}, must be at least 0 and below 1 - 2^-17", op, dropout.probability);
}

void check_quantized(const Arguments& arguments, const QuantizedMatrix& q) {
  arguments.dense("values", q.values, DType::i8, {kAny, kAny});
  arguments.dense("scales", q.scales, DType::f32, {q.values.shape[0]});
}

int64_t bytes_of(const EmbeddingTables& tables) {
  int64_t bytes = tables.token.bytes() + tables.start.bytes();
  for (const Tensor& axis : tables.axes) bytes += axis.bytes();
  return bytes;
}

void check_tables(const Arguments& arguments, const EmbeddingTables& tables) {
  arguments.dense("token table", tables.token, DType::f32, {kAny, kAny});
  const int64_t width = tables.token.shape[1];
  arguments.dense("start", tables.start, DType::f32, {width});
  for (const Tensor& axis : tables.axes) arguments.dense("position table", axis, DType::f32, {kAny, width});
}

}  // namespace

void activation_forward(const OpContext& context, const Tensor& x, const Tensor& y) {
  const OpTimer timer("activation_forward", {.bytes = x.bytes() + y.bytes()});
  const Arguments arguments("activation_forward", context.device);
  arguments.product("x", x.dtype);
  arguments.flat("x", x, x.dtype, x.count());
  arguments.flat("y", y, x.dtype, x.count());
  if (on_gpu(context.device)) return cuda::activation_forward(context, x, y);
  cpu::activation_forward(context, x, y);
}

void activation_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& dx,
                         const Tensor& y) {
  const OpTimer timer("activation_backward", {.bytes = dy.bytes() + x.bytes() + dx.bytes() + y.bytes()});
  const Arguments arguments("activation_backward", context.device);
  arguments.product("x", x.dtype);
  arguments.flat("x", x, x.dtype, x.count());
  arguments.flat("dy", dy, x.dtype, x.count());
  arguments.flat("dx", dx, x.dtype, x.count());
  if (y) arguments.flat("y", y, x.dtype, x.count());
  if (on_gpu(context.device)) return cuda::activation_backward(context, dy, x, dx, y);
  cpu::activation_backward(context, dy, x, dx, y);
}

void adam_step(const OpContext& context, const AdamStep& step, const Tensor& w, const Tensor& g,
               const Tensor& m, const Tensor& v, const Tensor& average, const Tensor& compute) {
  const OpTimer timer("adam_step", {.bytes = 2 * (w.bytes() + m.bytes() + v.bytes() + average.bytes()) +
                                             g.bytes() + compute.bytes()});
  const Arguments arguments("adam_step", context.device);
  LONGSTRIDE_CHECK(step.step >= 1, "adam_step: step is {}, must be 1 or more", step.step);
  LONGSTRIDE_CHECK(step.beta1 >= 0 && step.beta1 < 1 && step.beta2 >= 0 && step.beta2 < 1,
                   "adam_step: betas are {} and {}, must be in [0, 1)", step.beta1, step.beta2);
  const int64_t count = w.count();
  arguments.flat("w", w, DType::f32, count);
  arguments.flat("g", g, DType::f32, count);
  arguments.flat("m", m, DType::f32, count);
  arguments.flat("v", v, DType::f32, count);
  if (average) arguments.flat("average", average, DType::f32, count);
  if (compute) {
    const bool f16 = compute.dtype == DType::f16;
    LONGSTRIDE_CHECK(!f16 || on_gpu(context.device),
                     "adam_step: compute is f16, must be bf16 (f16 needs a GPU)");
    arguments.flat("compute", compute, f16 ? DType::f16 : DType::bf16, count);
  }
  if (on_gpu(context.device)) return cuda::adam_step(context, step, w, g, m, v, average, compute);
  cpu::adam_step(context, step, w, g, m, v, average, compute);
}

double sum_of_squares(const OpContext& context, const Tensor& x) {
  const OpTimer timer("sum_of_squares", {.bytes = x.bytes()});
  const Arguments arguments("sum_of_squares", context.device);
  arguments.flat("x", x, DType::f32, x.count());
  if (on_gpu(context.device)) return cuda::sum_of_squares(context, x);
  return cpu::sum_of_squares(context, x);
}

void convert(const OpContext& context, const Tensor& from, const Tensor& to) {
  const OpTimer timer("convert", {.bytes = from.bytes() + to.bytes()});
  const Arguments arguments("convert", context.device);
  arguments.product("from", from.dtype);
  arguments.flat("from", from, from.dtype, from.count());
  arguments.product("to", to.dtype);
  arguments.flat("to", to, to.dtype, from.count());
  if (on_gpu(context.device)) return cuda::convert(context, from, to);
  cpu::convert(context, from, to);
}

void cross_entropy_forward(const OpContext& context, const Tensor& logits, const Tensor& targets,
                           const Tensor& loss) {
  const OpTimer timer("cross_entropy_forward", {.bytes = logits.bytes()});
  const Arguments arguments("cross_entropy_forward", context.device);
  arguments.dense("logits", logits, DType::f32, {kAny, kAny});
  arguments.dense("targets", targets, DType::u8, {logits.shape[0]});
  arguments.dense("loss", loss, DType::f32, {logits.shape[0]});
  arguments.below("targets", targets, logits.shape[1]);
  if (on_gpu(context.device)) return cuda::cross_entropy_forward(context, logits, targets, loss);
  cpu::cross_entropy_forward(context, logits, targets, loss);
}

void cross_entropy_backward(const OpContext& context, const Tensor& logits, const Tensor& targets,
                            float scale, const Tensor& loss, const Tensor& dlogits, const Tensor& times) {
  const OpTimer timer("cross_entropy_backward", {.bytes = logits.bytes() + dlogits.bytes()});
  const Arguments arguments("cross_entropy_backward", context.device);
  arguments.dense("logits", logits, DType::f32, {kAny, kAny});
  arguments.dense("targets", targets, DType::u8, {logits.shape[0]});
  arguments.dense("loss", loss, DType::f32, {logits.shape[0]});
  arguments.dense("dlogits", dlogits, DType::f32, {logits.shape[0], logits.shape[1]});
  if (times) arguments.dense("times", times, DType::f32, {1});
  arguments.below("targets", targets, logits.shape[1]);
  if (on_gpu(context.device))
    return cuda::cross_entropy_backward(context, logits, targets, scale, loss, dlogits, times);
  cpu::cross_entropy_backward(context, logits, targets, scale, loss, dlogits, times);
}

void dropout_add_forward(const OpContext& context, const Tensor& x, const Tensor& branch,
                         const Dropout& dropout, const Tensor& y) {
  const OpTimer timer("dropout_add_forward", {.bytes = x.bytes() + branch.bytes() + y.bytes()});
  const Arguments arguments("dropout_add_forward", context.device);
  check_dropout("dropout_add_forward", dropout);
  arguments.flat("x", x, DType::f32, x.count());
  arguments.product("branch", branch.dtype);
  arguments.flat("branch", branch, branch.dtype, x.count());
  arguments.flat("y", y, DType::f32, x.count());
  if (on_gpu(context.device)) return cuda::dropout_add_forward(context, x, branch, dropout, y);
  cpu::dropout_add_forward(context, x, branch, dropout, y);
}

void dropout_backward(const OpContext& context, const Tensor& dy, const Dropout& dropout,
                      const Tensor& dbranch) {
  const OpTimer timer("dropout_backward", {.bytes = dy.bytes() + dbranch.bytes()});
  const Arguments arguments("dropout_backward", context.device);
  check_dropout("dropout_backward", dropout);
  arguments.flat("dy", dy, DType::f32, dy.count());
  arguments.product("dbranch", dbranch.dtype);
  arguments.flat("dbranch", dbranch, dbranch.dtype, dy.count());
  if (on_gpu(context.device)) return cuda::dropout_backward(context, dy, dropout, dbranch);
  cpu::dropout_backward(context, dy, dropout, dbranch);
}

void embedding_forward(const OpContext& context, const Tensor& tokens, const EmbeddingTables& tables,
                       const Tensor& y) {
  const OpTimer timer("embedding_forward", {.bytes = y.bytes()});
  const Arguments arguments("embedding_forward", context.device);
  check_tables(arguments, tables);
  arguments.dense("tokens", tokens, DType::u8, {kAny, kAny});
  arguments.dense("y", y, DType::f32, {tokens.count(), tables.token.shape[1]});
  arguments.below("tokens", tokens, tables.token.shape[0]);
  if (on_gpu(context.device)) return cuda::embedding_forward(context, tokens, tables, y);
  cpu::embedding_forward(context, tokens, tables, y);
}

void embedding_one(const OpContext& context, const Tensor& previous, std::span<const int64_t> positions,
                   const EmbeddingTables& tables, const Tensor& y) {
  const OpTimer timer("embedding_one", {.bytes = y.bytes()});
  const Arguments arguments("embedding_one", context.device);
  LONGSTRIDE_CHECK(!on_gpu(context.device), "embedding_one: runs on the CPU, not on {}",
                   name_of(context.device));
  check_tables(arguments, tables);
  const int64_t rows = static_cast<int64_t>(positions.size()), classes = tables.token.shape[0];
  arguments.dense("y", y, DType::f32, {rows, tables.token.shape[1]});
  for (int64_t row = 0; row < rows; ++row) {
    LONGSTRIDE_CHECK(positions[row] >= -1, "embedding_one: position is {}, must be 0 or more, or -1",
                     positions[row]);
    if (positions[row] <= 0) continue;
    arguments.dense("previous", previous, DType::u8, {rows});
    const uint8_t token = previous.as<uint8_t>()[row];
    LONGSTRIDE_CHECK(token < classes, "embedding_one: previous[{}] is {}, must be below {}", row, token,
                     classes);
  }
  cpu::embedding_one(context, previous, positions, tables, y);
}

int64_t embedding_backward_scratch_bytes(Device device, int64_t batch, int64_t length, int64_t vocabulary,
                                         int64_t width, std::span<const int64_t> extents) {
  const Arguments arguments("embedding_backward_scratch_bytes", device);
  if (!on_gpu(device)) return 0;
  return cuda::embedding_backward_scratch_bytes(batch, length, vocabulary, width, extents);
}

void embedding_backward(const OpContext& context, const Tensor& tokens, const Tensor& dy,
                        const EmbeddingTables& gradients) {
  const OpTimer timer("embedding_backward", {.bytes = dy.bytes() + 2 * bytes_of(gradients)});
  const Arguments arguments("embedding_backward", context.device);
  check_tables(arguments, gradients);
  arguments.dense("tokens", tokens, DType::u8, {kAny, kAny});
  arguments.dense("dy", dy, DType::f32, {tokens.count(), gradients.token.shape[1]});
  arguments.below("tokens", tokens, gradients.token.shape[0]);
  std::vector<int64_t> extents;
  for (const Tensor& axis : gradients.axes) extents.push_back(axis.shape[0]);
  arguments.scratch(
      context, embedding_backward_scratch_bytes(context.device, tokens.shape[0], tokens.shape[1],
                                                gradients.token.shape[0], gradients.token.shape[1], extents));
  if (on_gpu(context.device)) return cuda::embedding_backward(context, tokens, dy, gradients);
  cpu::embedding_backward(context, tokens, dy, gradients);
}

void layer_norm_forward(const OpContext& context, const Tensor& x, const Tensor& gain, const Tensor& bias,
                        float epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  const OpTimer timer("layer_norm_forward", {.bytes = x.bytes() + y.bytes()});
  const Arguments arguments("layer_norm_forward", context.device);
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.dense("gain", gain, DType::f32, {x.shape[1]});
  arguments.dense("bias", bias, DType::f32, {x.shape[1]});
  arguments.product("y", y.dtype);
  arguments.dense("y", y, y.dtype, {x.shape[0], x.shape[1]});
  arguments.dense("mean", mean, DType::f32, {x.shape[0]});
  arguments.dense("rstd", rstd, DType::f32, {x.shape[0]});
  if (on_gpu(context.device)) return cuda::layer_norm_forward(context, x, gain, bias, epsilon, y, mean, rstd);
  cpu::layer_norm_forward(context, x, gain, bias, epsilon, y, mean, rstd);
}

void layer_norm_apply(const OpContext& context, const Tensor& x, const Tensor& gain, const Tensor& bias,
                      const Tensor& mean, const Tensor& rstd, const Tensor& y) {
  const OpTimer timer("layer_norm_apply", {.bytes = x.bytes() + y.bytes()});
  const Arguments arguments("layer_norm_apply", context.device);
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.dense("gain", gain, DType::f32, {x.shape[1]});
  arguments.dense("bias", bias, DType::f32, {x.shape[1]});
  arguments.dense("mean", mean, DType::f32, {x.shape[0]});
  arguments.dense("rstd", rstd, DType::f32, {x.shape[0]});
  arguments.product("y", y.dtype);
  arguments.dense("y", y, y.dtype, {x.shape[0], x.shape[1]});
  if (on_gpu(context.device)) return cuda::layer_norm_apply(context, x, gain, bias, mean, rstd, y);
  cpu::layer_norm_apply(context, x, gain, bias, mean, rstd, y);
}

int64_t layer_norm_backward_scratch_bytes(Device device, int64_t rows, int64_t width) {
  const Arguments arguments("layer_norm_backward_scratch_bytes", device);
  if (on_gpu(device)) return cuda::layer_norm_backward_scratch_bytes(rows, width);
  return cpu::layer_norm_backward_scratch_bytes(rows, width);
}

void layer_norm_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& gain,
                         const Tensor& mean, const Tensor& rstd, const Tensor& dx, const Tensor& dgain,
                         const Tensor& dbias) {
  const OpTimer timer("layer_norm_backward", {.bytes = dy.bytes() + x.bytes() + 2 * dx.bytes()});
  const Arguments arguments("layer_norm_backward", context.device);
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.product("dy", dy.dtype);
  arguments.dense("dy", dy, dy.dtype, {x.shape[0], x.shape[1]});
  arguments.dense("gain", gain, DType::f32, {x.shape[1]});
  arguments.dense("mean", mean, DType::f32, {x.shape[0]});
  arguments.dense("rstd", rstd, DType::f32, {x.shape[0]});
  arguments.dense("dx", dx, DType::f32, {x.shape[0], x.shape[1]});
  arguments.dense("dgain", dgain, DType::f32, {x.shape[1]});
  arguments.dense("dbias", dbias, DType::f32, {x.shape[1]});
  arguments.scratch(context, layer_norm_backward_scratch_bytes(context.device, x.shape[0], x.shape[1]));
  if (on_gpu(context.device))
    return cuda::layer_norm_backward(context, dy, x, gain, mean, rstd, dx, dgain, dbias);
  cpu::layer_norm_backward(context, dy, x, gain, mean, rstd, dx, dgain, dbias);
}

int64_t linear_scratch_bytes(Device device, int64_t rows, int64_t in, int64_t out, DType product,
                             DType stored) {
  const Arguments arguments("linear_scratch_bytes", device);
  arguments.product("product", product);
  arguments.product("stored", stored);
  if (on_gpu(device)) return cuda::linear_scratch_bytes(rows, in, out, product, stored);
  return cpu::linear_scratch_bytes(rows, in, out, product, stored);
}

void linear_forward(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                    const Tensor& y) {
  const OpTimer timer("linear_forward",
                      product_work(x, w.shape[0], x.bytes() + w.bytes() + b.bytes() + y.bytes()));
  const Arguments arguments("linear_forward", context.device);
  arguments.product("w", w.dtype);
  arguments.rows("w", w, w.dtype, {kAny, kAny});
  arguments.activation("x", x, w.dtype, {kAny, w.shape[1]});
  if (b) arguments.dense("b", b, DType::f32, {w.shape[0]});
  arguments.activation("y", y, w.dtype, {x.shape[0], w.shape[0]});
  arguments.scratch(
      context, linear_scratch_bytes(context.device, x.shape[0], w.shape[1], w.shape[0], w.dtype, x.dtype));
  if (on_gpu(context.device)) return cuda::linear_forward(context, x, w, b, y);
  cpu::linear_forward(context, x, w, b, y);
}

void linear_each_row(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                     const Tensor& y) {
  const OpTimer timer("linear_each_row",
                      product_work(x, w.shape[0], x.bytes() + w.bytes() + b.bytes() + y.bytes()));
  const Arguments arguments("linear_each_row", context.device);
  LONGSTRIDE_CHECK(!on_gpu(context.device), "linear_each_row: runs on the CPU, not on {}",
                   name_of(context.device));
  arguments.product("w", w.dtype);
  arguments.rows("w", w, w.dtype, {kAny, kAny});
  arguments.rows("x", x, DType::f32, {kAny, w.shape[1]});
  if (b) arguments.dense("b", b, DType::f32, {w.shape[0]});
  arguments.rows("y", y, DType::f32, {x.shape[0], w.shape[0]});
  arguments.scratch(context, w.dtype == DType::f32 ? 0 : x.count() * size_of(w.dtype));
  cpu::linear_each_row(context, x, w, b, y);
}

void linear_backward_input(const OpContext& context, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  const OpTimer timer("linear_backward_input",
                      product_work(dy, w.shape[1], dy.bytes() + w.bytes() + dx.bytes()));
  const Arguments arguments("linear_backward_input", context.device);
  arguments.product("w", w.dtype);
  arguments.rows("w", w, w.dtype, {kAny, kAny});
  arguments.activation("dy", dy, w.dtype, {kAny, w.shape[0]});
  arguments.activation("dx", dx, w.dtype, {dy.shape[0], w.shape[1]});
  arguments.scratch(
      context, linear_scratch_bytes(context.device, dy.shape[0], w.shape[1], w.shape[0], w.dtype, dy.dtype));
  if (on_gpu(context.device)) return cuda::linear_backward_input(context, dy, w, dx);
  cpu::linear_backward_input(context, dy, w, dx);
}

void linear_backward_weight(const OpContext& context, const Tensor& dy, const Tensor& x, DType product,
                            const Tensor& dw, const Tensor& db) {
  const OpTimer timer("linear_backward_weight",
                      product_work(dy, x.shape[1], dy.bytes() + x.bytes() + 2 * (dw.bytes() + db.bytes())));
  const Arguments arguments("linear_backward_weight", context.device);
  arguments.product("product", product);
  arguments.activation("dy", dy, product, {kAny, kAny});
  arguments.activation("x", x, product, {dy.shape[0], kAny});
  arguments.rows("dw", dw, DType::f32, {dy.shape[1], x.shape[1]});
  if (db) arguments.dense("db", db, DType::f32, {dy.shape[1]});
  const DType stored = dy.dtype == x.dtype ? x.dtype : DType::f32;
  arguments.scratch(
      context, linear_scratch_bytes(context.device, dy.shape[0], x.shape[1], dy.shape[1], product, stored));
  if (on_gpu(context.device)) return cuda::linear_backward_weight(context, dy, x, product, dw, db);
  cpu::linear_backward_weight(context, dy, x, product, dw, db);
}

void residual_forward(const OpContext& context, const ResidualForward& t) {
  const OpTimer timer("residual_forward",
                      {.bytes = t.x.bytes() + t.branch.bytes() + t.y.bytes() + t.normed.bytes()});
  const Arguments arguments("residual_forward", context.device);
  check_dropout("residual_forward", t.dropout);
  arguments.dense("x", t.x, DType::f32, {kAny, kAny});
  const int64_t rows = t.x.shape[0], width = t.x.shape[1];
  arguments.product("branch", t.branch.dtype);
  arguments.dense("branch", t.branch, t.branch.dtype, {rows, width});
  arguments.dense("gain", t.gain, DType::f32, {width});
  arguments.dense("bias", t.bias, DType::f32, {width});
  arguments.dense("y", t.y, DType::f32, {rows, width});
  arguments.dense("normed", t.normed, t.branch.dtype, {rows, width});
  arguments.dense("mean", t.mean, DType::f32, {rows});
  arguments.dense("rstd", t.rstd, DType::f32, {rows});
  if (on_gpu(context.device)) return cuda::residual_forward(context, t);
  cpu::residual_forward(context, t);
}

void residual_backward(const OpContext& context, const ResidualBackward& t) {
  const OpTimer timer("residual_backward",
                      {.bytes = t.dy.bytes() + t.x.bytes() + 2 * t.dx.bytes() + t.dbranch.bytes()});
  const Arguments arguments("residual_backward", context.device);
  check_dropout("residual_backward", t.dropout);
  arguments.dense("x", t.x, DType::f32, {kAny, kAny});
  const int64_t rows = t.x.shape[0], width = t.x.shape[1];
  arguments.product("dy", t.dy.dtype);
  arguments.dense("dy", t.dy, t.dy.dtype, {rows, width});
  arguments.dense("gain", t.gain, DType::f32, {width});
  arguments.dense("mean", t.mean, DType::f32, {rows});
  arguments.dense("rstd", t.rstd, DType::f32, {rows});
  arguments.dense("dx", t.dx, DType::f32, {rows, width});
  arguments.dense("dgain", t.dgain, DType::f32, {width});
  arguments.dense("dbias", t.dbias, DType::f32, {width});
  arguments.dense("dbranch", t.dbranch, t.dy.dtype, {rows, width});
  arguments.scratch(context, layer_norm_backward_scratch_bytes(context.device, rows, width));
  if (on_gpu(context.device)) return cuda::residual_backward(context, t);
  cpu::residual_backward(context, t);
}

void quantize(const OpContext& context, const Tensor& w, const QuantizedMatrix& q) {
  const OpTimer timer("quantize", {.bytes = w.bytes() + q.values.bytes()});
  const Arguments arguments("quantize", context.device);
  check_quantized(arguments, q);
  arguments.dense("w", w, DType::f32, {q.values.shape[0], q.values.shape[1]});
  if (on_gpu(context.device)) return cuda::quantize(context, w, q);
  const float* values = w.as<float>();
  const float* bad = std::find_if_not(values, values + w.count(), [](float v) { return std::isfinite(v); });
  LONGSTRIDE_CHECK(bad == values + w.count(), "quantize: w[{}] is {}, must be finite", bad - values, *bad);
  cpu::quantize(context, w, q);
}

void dequantize(const OpContext& context, const QuantizedMatrix& q, const Tensor& w) {
  const OpTimer timer("dequantize", {.bytes = q.values.bytes() + w.bytes()});
  const Arguments arguments("dequantize", context.device);
  check_quantized(arguments, q);
  arguments.product("w", w.dtype);
  arguments.dense("w", w, w.dtype, {q.values.shape[0], q.values.shape[1]});
  if (on_gpu(context.device)) return cuda::dequantize(context, q, w);
  cpu::dequantize(context, q, w);
}

void quantized_linear_forward(const OpContext& context, const Tensor& x, const QuantizedMatrix& w,
                              const Tensor& b, const Tensor& y) {
  const int64_t bytes = x.bytes() + w.values.bytes() + w.scales.bytes() + b.bytes() + y.bytes();
  const OpTimer timer("quantized_linear_forward", product_work(x, w.values.shape[0], bytes));
  const Arguments arguments("quantized_linear_forward", context.device);
  check_quantized(arguments, w);
  arguments.rows("x", x, DType::f32, {kAny, w.values.shape[1]});
  if (b) arguments.dense("b", b, DType::f32, {w.values.shape[0]});
  arguments.rows("y", y, DType::f32, {x.shape[0], w.values.shape[0]});
  if (on_gpu(context.device)) return cuda::quantized_linear_forward(context, x, w, b, y);
  cpu::quantized_linear_forward(context, x, w, b, y);
}

}  // namespace longstride
