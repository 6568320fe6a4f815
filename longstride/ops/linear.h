// Linear layer, y = x w^T + b.
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// Products accumulate in f32. With a bf16 weight (in linear_backward_weight: with `product` bf16) the tensors
// that are multiplied and their results may each be f32 or bf16: what is f32 is rounded to bf16 in scratch
// first, and a bf16 result is rounded once, at the end; on a GPU likewise with f16, and there the bias may be
// rounded to the dtype of y before it is added. Else all is f32. Rows of x, y and their gradients may be part
// of wider ones (row stride > width).

// Rows x (M, K), weight w (N, K) f32, bf16 or f16, bias b (N) f32 or an empty tensor; y (M, N) =. Scratch:
// linear_scratch_bytes.
void linear_forward(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                    const Tensor& y);

// The same for sampling, CPU only: x and y f32, and a row of y is the same bits whatever rows stand beside it
// and for any number of threads. Scratch with a bf16 weight: x in bf16.
void linear_each_row(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                     const Tensor& y);

// dx (M, K) = dy w, for dy (M, N).
void linear_backward_input(const OpContext& context, const Tensor& dy, const Tensor& w, const Tensor& dx);

// dw (N, K) f32 += dy^T x and db (N) f32 += column sums of dy (db may be empty). Sums of db are of dy as it
// is, in f32.
void linear_backward_weight(const OpContext& context, const Tensor& dy, const Tensor& x, DType product,
                            const Tensor& dw, const Tensor& db);

// The most bytes of context.scratch that any of the three calls needs for x (rows, in), y (rows, out) and
// products in `product`, the dtype of w in the first two. `stored` is bf16 or f16 if x, y and their
// gradients all are.
int64_t linear_scratch_bytes(Device device, int64_t rows, int64_t in, int64_t out, DType product,
                             DType stored = DType::f32);

}  // namespace longstride
