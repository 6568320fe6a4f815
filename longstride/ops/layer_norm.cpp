#include "longstride/ops/layer_norm.h"

namespace longstride {

namespace {

void check_forward(const Arguments& arguments, const Tensor& x, const Tensor& gain, const Tensor& bias,
                   const Tensor& y) {
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.dense("gain", gain, DType::f32, {x.shape[1]});
  arguments.dense("bias", bias, DType::f32, {x.shape[1]});
  arguments.product("y", y.dtype);
  arguments.dense("y", y, y.dtype, {x.shape[0], x.shape[1]});
}

void check_statistics(const Arguments& arguments, const Tensor& x, const Tensor& mean, const Tensor& rstd) {
  arguments.dense("mean", mean, DType::f32, {x.shape[0]});
  arguments.dense("rstd", rstd, DType::f32, {x.shape[0]});
}

}  // namespace

OpWork LayerNormForward::work() const { return {.bytes = x.bytes() + y.bytes()}; }

void LayerNormForward::check(const Arguments& arguments) const {
  check_forward(arguments, x, gain, bias, y);
  check_statistics(arguments, x, mean, rstd);
}

OpWork LayerNormApply::work() const { return {.bytes = x.bytes() + y.bytes()}; }

void LayerNormApply::check(const Arguments& arguments) const {
  check_forward(arguments, x, gain, bias, y);
  check_statistics(arguments, x, mean, rstd);
}

OpWork LayerNormBackward::work() const { return {.bytes = dy.bytes() + x.bytes() + 2 * dx.bytes()}; }

void LayerNormBackward::check(const Arguments& arguments) const {
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.product("dy", dy.dtype);
  arguments.dense("dy", dy, dy.dtype, {x.shape[0], x.shape[1]});
  arguments.dense("gain", gain, DType::f32, {x.shape[1]});
  check_statistics(arguments, x, mean, rstd);
  arguments.dense("dx", dx, DType::f32, {x.shape[0], x.shape[1]});
  arguments.dense("dgain", dgain, DType::f32, {x.shape[1]});
  arguments.dense("dbias", dbias, DType::f32, {x.shape[1]});
}

int64_t layer_norm_backward_scratch_bytes(Device device, int64_t rows, int64_t width) {
  const Tensor matrix(nullptr, DType::f32, {rows, width}, device.kind);
  const Tensor row(nullptr, DType::f32, {width}, device.kind),
      column(nullptr, DType::f32, {rows}, device.kind);
  return scratch_bytes(device, LayerNormBackward{matrix, matrix, row, column, column, matrix, row, row});
}

}  // namespace longstride
