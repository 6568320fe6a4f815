// The causal convolution: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/causal_convolution.h"

#include "longstride/ops/arguments.h"
#include "longstride/ops/profile.h"

namespace longstride {

namespace {

void check_positions(const char* op, const Tensor& x, int64_t positions) {
  LONGSTRIDE_CHECK(positions >= 1 && x.shape[0] % positions == 0,
                   "{}: {} rows are no whole sequences of {} positions", op, x.shape[0], positions);
}

}  // namespace

void causal_convolution_forward(const OpContext& context, const Tensor& x, const Tensor& w, int64_t positions,
                                const Tensor& y) {
  const char* op = "causal_convolution_forward";
  const OpTimer timer(op, {.bytes = x.bytes() + y.bytes()});
  const Arguments arguments(op, context.device);
  arguments.product("x", x.dtype);
  arguments.dense("x", x, x.dtype, {kAny, kAny});
  arguments.dense("w", w, DType::f32, {kConvolutionTaps, x.shape[1]});
  arguments.dense("y", y, x.dtype, {x.shape[0], x.shape[1]});
  LONGSTRIDE_CHECK(x.count() == 0 || x.data != y.data, "{}: y may not be x", op);
  check_positions(op, x, positions);
  if (x.count() == 0) return;
  if (on_gpu(context.device)) return cuda::causal_convolution_forward(context, x, w, positions, y);
  cpu::causal_convolution_forward(context, x, w, positions, y);
}

void causal_convolution_backward(const OpContext& context, const Tensor& dy, const Tensor& w,
                                 int64_t positions, const Tensor& x, const Tensor& dw) {
  const char* op = "causal_convolution_backward";
  const OpTimer timer(op, {.bytes = dy.bytes() + 2 * x.bytes()});
  const Arguments arguments(op, context.device);
  arguments.product("x", x.dtype);
  arguments.dense("x", x, x.dtype, {kAny, kAny});
  arguments.dense("dy", dy, x.dtype, {x.shape[0], x.shape[1]});
  arguments.dense("w", w, DType::f32, {kConvolutionTaps, x.shape[1]});
  arguments.dense("dw", dw, DType::f32, {kConvolutionTaps, x.shape[1]});
  LONGSTRIDE_CHECK(x.count() == 0 || x.data != dy.data, "{}: dy may not be x", op);
  check_positions(op, x, positions);
  if (x.count() == 0) return;
  arguments.scratch(context, causal_convolution_scratch_bytes(context.device, x.shape[0], x.shape[1]));
  if (on_gpu(context.device)) return cuda::causal_convolution_backward(context, dy, w, positions, x, dw);
  cpu::causal_convolution_backward(context, dy, w, positions, x, dw);
}

int64_t causal_convolution_scratch_bytes(Device device, int64_t rows, int64_t width) {
  const Arguments arguments("causal_convolution_scratch_bytes", device);
  if (on_gpu(device)) return cuda::causal_convolution_scratch_bytes(rows, width);
  return cpu::causal_convolution_scratch_bytes(rows, width);
}

void causal_convolution_at(const OpContext& context, const Tensor& x, const Tensor& w,
                           std::span<const int64_t> sequences, std::span<const int64_t> positions,
                           const Tensor& recent, const Tensor& y) {
  const char* op = "causal_convolution_at";
  const OpTimer timer(op, {.bytes = x.bytes() * (1 + kConvolutionTaps) + y.bytes()});
  LONGSTRIDE_CHECK(!on_gpu(context.device), "{} runs on the CPU only", op);
  const Arguments arguments(op, context.device);
  arguments.dense("x", x, DType::f32, {kAny, kAny});
  arguments.dense("w", w, DType::f32, {kConvolutionTaps, x.shape[1]});
  arguments.dense("y", y, DType::f32, {x.shape[0], x.shape[1]});
  arguments.dense("recent", recent, DType::f32, {kAny, kConvolutionTaps, x.shape[1]});
  const auto rows = static_cast<size_t>(x.shape[0]);
  LONGSTRIDE_CHECK(sequences.size() == rows && positions.size() == rows,
                   "{}: {} sequences and {} positions for {} rows", op, sequences.size(), positions.size(),
                   rows);
  for (size_t m = 0; m < rows; ++m)
    LONGSTRIDE_CHECK(sequences[m] >= 0 && sequences[m] < recent.shape[0] && positions[m] >= 0,
                     "{}: row {} stands at position {} of sequence {} of {}", op, m, positions[m],
                     sequences[m], recent.shape[0]);
  cpu::causal_convolution_at(context, x, w, sequences, positions, recent, y);
}

}  // namespace longstride
