// Sums in a fixed order (contract: longstride/ops/ordered_sum.h). Each thread takes eights. Bound by memory.
// No scratch.
#include <algorithm>

#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/ordered_sum.h"

namespace longstride::cuda {

namespace {

__device__ inline void add8(Eight& sum, const Eight& x) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sum.v[i] = __fadd_rn(sum.v[i], x.v[i]);
}

__global__ void __launch_bounds__(kThreads)
    ordered_sum_kernel(const float* parts, int64_t stride, int count, int place, float* sum, int64_t elements,
                       bool vectors) {
  const int64_t first = first_of_eight();
  const int n = of_eight(first, elements);
  if (n == 0) return;
  const Eight own = read8(sum + first, n, vectors);
  Eight total = place > 0 ? read8(parts + first, n, vectors) : own;
  for (int p = 1; p < place; ++p) add8(total, read8(parts + p * stride + first, n, vectors));
  if (place > 0) add8(total, own);
  for (int p = place; p < count; ++p) add8(total, read8(parts + p * stride + first, n, vectors));
  write8(sum + first, total, n, vectors);
}

}  // namespace

template <>
void compute(const OpContext&, const OrderedSum& t) {
  if (t.sum.count() == 0 || t.parts.shape[0] == 0) return;
  const float* const parts = data_of<const float>(t.parts);
  float* const sum = data_of<float>(t.sum);
  const bool vectors = t.parts.stride[0] % 4 == 0 && vectors_suit(parts, sum);
  ordered_sum_kernel<<<blocks_of_eights(t.sum.count()), kThreads, 0, current()>>>(
      parts, t.parts.stride[0], static_cast<int>(t.parts.shape[0]), static_cast<int>(t.place), sum,
      t.sum.count(), vectors);
  check_launch(t.name());
}

}  // namespace longstride::cuda
