#include "longstride/ops/residual.h"

namespace longstride {

OpWork ResidualForward::work() const {
  return {.bytes = x.bytes() + branch.bytes() + y.bytes() + normed.bytes()};
}

void ResidualForward::check(const Arguments& arguments) const {
  check_dropout(name(), dropout);
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  const int64_t rows = x.shape[0], width = x.shape[1];
  arguments.product("branch", branch.dtype);
  arguments.dense("branch", branch, branch.dtype, {rows, width});
  arguments.dense("gain", gain, DType::f32, {width});
  arguments.dense("bias", bias, DType::f32, {width});
  arguments.dense("y", y, DType::f32, {rows, width});
  arguments.dense("normed", normed, branch.dtype, {rows, width});
  arguments.dense("mean", mean, DType::f32, {rows});
  arguments.dense("rstd", rstd, DType::f32, {rows});
}

OpWork ResidualBackward::work() const {
  return {.bytes = dy.bytes() + x.bytes() + 2 * dx.bytes() + dbranch.bytes()};
}

void ResidualBackward::check(const Arguments& arguments) const {
  check_dropout(name(), dropout);
  LayerNormBackward{dy, x, gain, mean, rstd, dx, dgain, dbias}.check(arguments);
  arguments.dense("dbranch", dbranch, dy.dtype, {x.shape[0], x.shape[1]});
}

}  // namespace longstride
