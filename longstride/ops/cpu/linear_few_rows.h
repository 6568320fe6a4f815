// Products of a few rows with a weight matrix, as in a step of sampling. Each element of the weight is used
// only a few times, so the pace is that of reading it.
#pragma once

#include "longstride/base/tensor.h"

namespace longstride::cpu {

// Up to this many rows of x, reading the weight once is faster than a product prepared for many rows.
inline constexpr int64_t kFewRows = 8;

// y (M, N) f32 = x (M, K) w^T [* scales (N)] [+ b (N)], accumulated in f32. Scales and b may be empty
// tensors. x and w are both f32, both bf16, or f32 and i8. Rows may be parts of wider ones. Any M is
// allowed. The same bits for any number of threads, and for a row whatever rows are beside it.
void linear_few_rows(const Tensor& x, const Tensor& w, const Tensor& scales, const Tensor& b,
                     const Tensor& y);

}  // namespace longstride::cpu
