#include "longstride/ops/causal_convolution.h"

namespace longstride {

namespace {

// Checks x, and another tensor of its type and shape.
void check_rows(const Arguments& arguments, const Tensor& x, const char* other_name, const Tensor& other,
                int64_t positions) {
  const char* op = arguments.op();
  arguments.product("x", x.dtype);
  arguments.dense("x", x, x.dtype, {kAny, kAny});
  arguments.dense(other_name, other, x.dtype, {x.shape[0], x.shape[1]});
  LONGSTRIDE_CHECK(x.count() == 0 || x.data != other.data, "{}: {} may not be x", op, other_name);
  LONGSTRIDE_CHECK(positions >= 1 && x.shape[0] % positions == 0,
                   "{}: {} rows are no whole sequences of {} positions", op, x.shape[0], positions);
}

}  // namespace

OpWork CausalConvolutionForward::work() const { return {.bytes = x.bytes() + y.bytes()}; }

void CausalConvolutionForward::check(const Arguments& arguments) const {
  check_rows(arguments, x, "y", y, positions);
  arguments.dense("w", w, DType::f32, {kConvolutionTaps, x.shape[1]});
}

OpWork CausalConvolutionBackward::work() const { return {.bytes = dy.bytes() + 2 * x.bytes()}; }

void CausalConvolutionBackward::check(const Arguments& arguments) const {
  check_rows(arguments, x, "dy", dy, positions);
  arguments.dense("w", w, DType::f32, {kConvolutionTaps, x.shape[1]});
  arguments.dense("dw", dw, DType::f32, {kConvolutionTaps, x.shape[1]});
}

int64_t causal_convolution_scratch_bytes(Device device, int64_t rows, int64_t width) {
  const Tensor x(nullptr, DType::f32, {rows, width}, device.kind);
  const Tensor w(nullptr, DType::f32, {kConvolutionTaps, width}, device.kind);
  return scratch_bytes(device, CausalConvolutionBackward{x, w, 1, x, w});
}

OpWork CausalConvolutionAt::work() const { return {.bytes = x.bytes() * (1 + kConvolutionTaps) + y.bytes()}; }

void CausalConvolutionAt::check(const Arguments& arguments) const {
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.dense("w", w, DType::f32, {kConvolutionTaps, x.shape[1]});
  arguments.dense("y", y, DType::f32, {x.shape[0], x.shape[1]});
  arguments.dense("recent", recent, DType::f32, {kAny, kConvolutionTaps, x.shape[1]});
  const auto rows = static_cast<size_t>(x.shape[0]);
  LONGSTRIDE_CHECK(sequences.size() == rows && positions.size() == rows,
                   "{}: {} sequences and {} positions for {} rows", name(), sequences.size(),
                   positions.size(), rows);
  for (size_t m = 0; m < rows; ++m)
    LONGSTRIDE_CHECK(sequences[m] >= 0 && sequences[m] < recent.shape[0] && positions[m] >= 0,
                     "{}: row {} stands at position {} of sequence {} of {}", name(), m, positions[m],
                     sequences[m], recent.shape[0]);
}

}  // namespace longstride
