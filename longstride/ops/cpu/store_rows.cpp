// Rows to a cache (contract: longstride/ops/store_rows.h). The same bits for any number of threads. No
// scratch.
#include "longstride/ops/store_rows.h"

#include <cstring>

#include "longstride/ops/cpu/convert.h"

namespace longstride::cpu {

namespace {

// `count` rows of `width` elements, `from_stride` and `to_stride` elements apart.
struct Run {
  int64_t count, width, from_stride, to_stride;
};

void store(const char* from, DType from_dtype, char* to, DType to_dtype, const Run& run) {
  if (from_dtype != to_dtype)
    return round_rows(reinterpret_cast<const float*>(from), run.from_stride, run.count, run.width,
                      reinterpret_cast<Bf16*>(to), run.to_stride);
  const int64_t size = size_of(to_dtype);
  for (int64_t row = 0; row < run.count; ++row)
    std::memcpy(to + row * run.to_stride * size, from + row * run.from_stride * size,
                static_cast<size_t>(run.width * size));
}

}  // namespace

void store_rows(const OpContext&, const Tensor& rows, const Tensor& cache) {
  // The longer one of the axes of positions and heads is the run.
  const int run_axis = rows.shape[1] > rows.shape[2] ? 1 : 2, other = 3 - run_axis;
  const Run run{rows.shape[run_axis], rows.shape[3], rows.stride[run_axis], cache.stride[run_axis]};
  for (int64_t b = 0; b < rows.shape[0]; ++b)
    for (int64_t i = 0; i < rows.shape[other]; ++i) {
      const int64_t from = b * rows.stride[0] + i * rows.stride[other],
                    to = b * cache.stride[0] + i * cache.stride[other];
      store(static_cast<const char*>(rows.data) + from * size_of(rows.dtype), rows.dtype,
            static_cast<char*>(cache.data) + to * size_of(cache.dtype), cache.dtype, run);
    }
}

}  // namespace longstride::cpu
