// Linear layer, y = x w^T + b.
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// Rows x (M, K) f32, weight w (N, K) f32 or bf16, bias b (N) f32 or an empty tensor; y (M, N) f32 =. With a
// bf16 weight, x is rounded to bf16 too and products accumulate in f32. The columns of x and y may be part of
// wider rows (row stride > K). Scratch: linear_scratch_bytes(M, K, N), for x in bf16 if w is bf16.
void linear_forward(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                    const Tensor& y);

// dx (M, K) f32 = dy w, for dy (M, N) f32; in bf16 products if w is bf16. Scratch: dy in bf16.
void linear_backward_input(const OpContext& context, const Tensor& dy, const Tensor& w, const Tensor& dx);

// dw (N, K) f32 += dy^T x and db (N) f32 += column sums of dy (db may be empty). `product` is bf16 or f32:
// how dy and x enter the product; sums of db are always f32. Scratch: dy and x in bf16 if `product` is bf16.
void linear_backward_weight(const OpContext& context, const Tensor& dy, const Tensor& x, DType product,
                            const Tensor& dw, const Tensor& db);

// The most bytes of context.scratch that any of the three calls needs for x (rows, in), y (rows, out) and
// products in `product`, the dtype of w in the first two. Zero for f32.
int64_t linear_scratch_bytes(Device device, int64_t rows, int64_t in, int64_t out, DType product);

}  // namespace longstride
