#include "longstride/ops/linear.h"

#include <algorithm>

namespace longstride {

OpWork product_work(const Tensor& matrix, int64_t columns, int64_t bytes) {
  return {bytes, 2.0 * static_cast<double>(matrix.count()) * static_cast<double>(columns)};
}

OpWork LinearForward::work() const {
  return product_work(x, w.shape[0], x.bytes() + w.bytes() + b.bytes() + y.bytes());
}

void LinearForward::check(const Arguments& arguments) const {
  arguments.product("w", w.dtype);
  arguments.rows("w", w, w.dtype, {kAny, kAny});
  arguments.activation("x", x, w.dtype, {kAny, w.shape[1]});
  if (b) arguments.dense("b", b, DType::f32, {w.shape[0]});
  arguments.activation("y", y, w.dtype, {x.shape[0], w.shape[0]});
}

OpWork LinearEachRow::work() const { return LinearForward{x, w, b, y}.work(); }

void LinearEachRow::check(const Arguments& arguments) const {
  arguments.product("w", w.dtype);
  arguments.rows("w", w, w.dtype, {kAny, kAny});
  arguments.rows("x", x, DType::f32, {kAny, w.shape[1]});
  if (b) arguments.dense("b", b, DType::f32, {w.shape[0]});
  arguments.rows("y", y, DType::f32, {x.shape[0], w.shape[0]});
}

OpWork LinearBackwardInput::work() const {
  return product_work(dy, w.shape[1], dy.bytes() + w.bytes() + dx.bytes());
}

void LinearBackwardInput::check(const Arguments& arguments) const {
  arguments.product("w", w.dtype);
  arguments.rows("w", w, w.dtype, {kAny, kAny});
  arguments.activation("dy", dy, w.dtype, {kAny, w.shape[0]});
  arguments.activation("dx", dx, w.dtype, {dy.shape[0], w.shape[1]});
}

OpWork LinearBackwardWeight::work() const {
  return product_work(dy, x.shape[1], dy.bytes() + x.bytes() + 2 * (dw.bytes() + db.bytes()));
}

void LinearBackwardWeight::check(const Arguments& arguments) const {
  arguments.product("product", product);
  arguments.activation("dy", dy, product, {kAny, kAny});
  arguments.activation("x", x, product, {dy.shape[0], kAny});
  arguments.rows("dw", dw, DType::f32, {dy.shape[1], x.shape[1]});
  if (db) arguments.dense("db", db, DType::f32, {dy.shape[1]});
}

int64_t linear_scratch_bytes(Device device, int64_t rows, int64_t in, int64_t out, DType product,
                             DType stored) {
  const Arguments arguments("linear_scratch_bytes", device);
  arguments.product("product", product);
  arguments.product("stored", stored);
  const auto shaped = [&](DType dtype, std::initializer_list<int64_t> shape) {
    return Tensor(nullptr, dtype, shape, device.kind);
  };
  const Tensor w = shaped(product, {out, in}), dw = shaped(DType::f32, {out, in}),
               b = shaped(DType::f32, {out});
  int64_t most = 0;
  for (const DType of_x : {stored, product})
    for (const DType of_y : {stored, product}) {
      const Tensor x = shaped(of_x, {rows, in}), y = shaped(of_y, {rows, out});
      most = std::max({most, scratch_bytes(device, LinearForward{x, w, b, y}),
                       scratch_bytes(device, LinearBackwardInput{y, w, x}),
                       scratch_bytes(device, LinearBackwardWeight{y, x, product, dw, b})});
    }
  return most;
}

}  // namespace longstride
