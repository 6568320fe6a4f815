// Rounding of f32 matrices to bf16, for convert and for the linear layer.
#pragma once

#include <cstdint>

#include "longstride/base/dtype.h"

namespace longstride::cpu {

// to (rows, width) = from, to nearest, ties to even; strides are those between rows, in elements.
void round_rows(const float* from, int64_t from_stride, int64_t rows, int64_t width, Bf16* to,
                int64_t to_stride);
// The same, but the rounded values are kept as f32.
void round_rows(const float* from, int64_t from_stride, int64_t rows, int64_t width, float* to,
                int64_t to_stride);
// Exact conversion.
void widen_rows(const Bf16* from, int64_t from_stride, int64_t rows, int64_t width, float* to,
                int64_t to_stride);

}  // namespace longstride::cpu
