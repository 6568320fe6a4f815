#include "longstride/ops/quantized_linear.h"

#include <algorithm>
#include <cmath>

#include "longstride/ops/linear.h"

namespace longstride {

namespace {

void check_matrix(const Arguments& arguments, const QuantizedMatrix& q) {
  arguments.dense("values", q.values, DType::i8, {kAny, kAny});
  arguments.dense("scales", q.scales, DType::f32, {q.values.shape[0]});
}

}  // namespace

OpWork Quantize::work() const { return {.bytes = w.bytes() + q.values.bytes()}; }

void Quantize::check(const Arguments& arguments) const {
  check_matrix(arguments, q);
  arguments.dense("w", w, DType::f32, {q.values.shape[0], q.values.shape[1]});
  if (on_gpu(arguments.device())) return;
  const float* values = w.as<float>();
  const float* bad = std::find_if_not(values, values + w.count(), [](float v) { return std::isfinite(v); });
  LONGSTRIDE_CHECK(bad == values + w.count(), "quantize: w[{}] is {}, must be finite", bad - values, *bad);
}

OpWork Dequantize::work() const { return {.bytes = q.values.bytes() + w.bytes()}; }

void Dequantize::check(const Arguments& arguments) const {
  check_matrix(arguments, q);
  arguments.product("w", w.dtype);
  arguments.dense("w", w, w.dtype, {q.values.shape[0], q.values.shape[1]});
}

OpWork QuantizedLinearForward::work() const {
  return product_work(x, w.values.shape[0],
                      x.bytes() + w.values.bytes() + w.scales.bytes() + b.bytes() + y.bytes());
}

void QuantizedLinearForward::check(const Arguments& arguments) const {
  check_matrix(arguments, w);
  arguments.rows("x", x, DType::f32, {kAny, w.values.shape[1]});
  if (b) arguments.dense("b", b, DType::f32, {w.values.shape[0]});
  arguments.rows("y", y, DType::f32, {x.shape[0], w.values.shape[0]});
}

}  // namespace longstride
