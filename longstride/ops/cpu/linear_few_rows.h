// Products of a few rows with a weight matrix, as one step of sampling has them: each element of the weight
// is used a few times only, so the pace is that of reading it.
#pragma once

#include "longstride/base/tensor.h"

namespace longstride::cpu {

// Up to this many rows of x, reading the weight once beats a product prepared for many rows.
inline constexpr int64_t kFewRows = 8;

// y (M, N) f32 = x (M, K) w^T [* scales (N)] [+ b (N)], accumulated in f32; empty tensors leave scales and
// bias out. x and w are both f32, both bf16, or f32 and i8. Rows may be parts of wider ones. Any M is right.
// The same bits for any number of threads, and for a row whatever rows stand beside it.
void linear_few_rows(const Tensor& x, const Tensor& w, const Tensor& scales, const Tensor& b,
                     const Tensor& y);

}  // namespace longstride::cpu
