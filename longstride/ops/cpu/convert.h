// Rounding of f32 matrices to bf16, for convert and for the linear layer.
#pragma once

#include <cstdint>

#include "longstride/base/dtype.h"

namespace longstride::cpu {

// to (rows, width), contiguous, = from, whose rows lie `row_stride` elements apart; to nearest, ties to even.
void round_rows(const float* from, int64_t row_stride, int64_t rows, int64_t width, Bf16* to);
// The same, the rounded values kept as f32.
void round_rows(const float* from, int64_t row_stride, int64_t rows, int64_t width, float* to);
// Exact.
void widen_rows(const Bf16* from, int64_t row_stride, int64_t rows, int64_t width, float* to);

}  // namespace longstride::cpu
