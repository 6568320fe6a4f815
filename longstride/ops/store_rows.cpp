// Rows to a cache: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/store_rows.h"

#include "longstride/ops/on_device.h"
#include "longstride/ops/profile.h"

namespace longstride {

void store_rows(const OpContext& context, const Tensor& rows, const Tensor& cache) {
  const OpTimer timer("store_rows", {.bytes = rows.bytes() + cache.bytes()});
  check_device("store_rows", context.device);
  LONGSTRIDE_CHECK(rows.rank == 4 && cache.rank == 4 && rows.shape == cache.shape,
                   "store_rows: rows are {} and their place is {}, must be of one shape (B, N, H, W)",
                   rows.describe(), cache.describe());
  const DType to = cache.dtype;
  const bool known = to == DType::f32 || to == DType::bf16 || (to == DType::f16 && on_gpu(context.device));
  LONGSTRIDE_CHECK(known && (rows.dtype == DType::f32 || rows.dtype == to),
                   "store_rows: rows are {}, the cache is {}; rows must be f32 or of the cache's dtype, f32, "
                   "bf16 or, on a GPU, f16",
                   rows.describe(), cache.describe());
  for (const Tensor* t : {&rows, &cache}) {
    LONGSTRIDE_CHECK(t->device == context.device.kind && (t->data != nullptr || t->count() == 0),
                     "store_rows: {} does not lie on {}", t->describe(), name_of(context.device));
    LONGSTRIDE_CHECK(t->stride[3] == 1 || t->shape[3] <= 1,
                     "store_rows: neighbours in the last axis of {} are {} elements apart, must be 1",
                     t->describe(), t->stride[3]);
  }
  if (on_gpu(context.device)) return cuda::store_rows(context, rows, cache);
  cpu::store_rows(context, rows, cache);
}

}  // namespace longstride
