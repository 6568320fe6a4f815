// Sums in a fixed order (contract: longstride/ops/ordered_sum.h). Elements are independent: the same bits for
// any number of threads and any instruction set. A piece of the sum stays in the cache while the parts pass.
#include "longstride/ops/ordered_sum.h"

#include <algorithm>

#include "longstride/ops/cpu/parallel.h"

namespace longstride::cpu {

namespace {

void add(const float* a, const float* b, int64_t count, float* sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] = a[i] + b[i];
}

}  // namespace

template <>
void compute(const OpContext&, const OrderedSum& t) {
  const auto part = [&](int64_t p) { return t.parts.as<float>() + p * t.parts.stride[0]; };
  float* const sum = t.sum.as<float>();
  parallel_pieces(t.sum.count(), kElementsPerPiece, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    if (t.place > 0) {
      // What comes before `sum` is collected beside it.
      alignas(64) float before[kElementsPerPiece];
      std::copy_n(part(0) + begin, count, before);
      for (int64_t p = 1; p < t.place; ++p) add(before, part(p) + begin, count, before);
      add(before, sum + begin, count, sum + begin);
    }
    for (int64_t p = t.place; p < t.parts.shape[0]; ++p)
      add(sum + begin, part(p) + begin, count, sum + begin);
  });
}

}  // namespace longstride::cpu
