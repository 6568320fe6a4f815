// Stores keys and values where a sampler keeps them (contract: longstride/ops/key_cache.h). A thread owns
// heads, whose rows are separate: the same bits for any number of threads. No scratch.
#include "longstride/ops/key_cache.h"

#include <cstring>

#include "longstride/base/threads.h"

namespace longstride::cpu {

namespace {

// Waking the other threads costs about as much as moving this many positions.
constexpr int64_t kShareFrom = 64;

// A loop that the compiler vectorises: rows are too short for a call each.
template <class From, class To>
void convert_row(const char* from, char* to, int64_t width) {
  for (int64_t i = 0; i < width; ++i)
    reinterpret_cast<To*>(to)[i] = To(static_cast<float>(reinterpret_cast<const From*>(from)[i]));
}

void store_row(const char* from, DType from_dtype, char* to, DType to_dtype, int64_t width) {
  if (from_dtype == to_dtype)
    std::memcpy(to, from, static_cast<size_t>(width * size_of(to_dtype)));
  else if (to_dtype == DType::bf16)
    convert_row<float, Bf16>(from, to, width);
  else
    convert_row<Bf16, float>(from, to, width);
}

void store_head(const HeadRows& head, int64_t h, int64_t sequence, int64_t begin, const Tensor& rows,
                const Tensor& cache) {
  const int64_t width = cache.shape[2], count = rows.shape[0];
  const char* from = static_cast<const char*>(rows.data) + h * rows.stride[1] * size_of(rows.dtype);
  char* to = static_cast<char*>(cache.data) +
             (sequence * cache.stride[0] + head.first_row * cache.stride[1]) * size_of(cache.dtype);
  for (int64_t n = 0; n < count; ++n)
    for_rows_of_key(*head.store, begin + n, begin + count, [&](int32_t row) {
      store_row(from + n * rows.stride[0] * size_of(rows.dtype), rows.dtype,
                to + row * cache.stride[1] * size_of(cache.dtype), cache.dtype, width);
    });
}

}  // namespace

template <>
void compute(const OpContext&, const StoreKeys& t) {
  const int64_t heads = static_cast<int64_t>(t.cache.heads.size());
  parallel_for(heads, t.keys.shape[0] >= kShareFrom ? threads() : 1, [&](int64_t h) {
    store_head(t.cache.heads[h], h, t.sequence, t.begin, t.keys, t.cache.keys);
    store_head(t.cache.heads[h], h, t.sequence, t.begin, t.values, t.cache.values);
  });
}

}  // namespace longstride::cpu
