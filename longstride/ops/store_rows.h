// Rows from where a layer computed them to where a cache keeps them.
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// cache (B, N, H, W) = rows (B, N, H, W), rounded to nearest even where the cache is narrower. Any strides
// but the last, which is 1; rows f32, or of the cache's dtype, which is f32, bf16 or, on a GPU, f16.
void store_rows(const OpContext& context, const Tensor& rows, const Tensor& cache);

namespace cpu {
void store_rows(const OpContext& context, const Tensor& rows, const Tensor& cache);
}
namespace cuda {
void store_rows(const OpContext& context, const Tensor& rows, const Tensor& cache);
}

}  // namespace longstride
