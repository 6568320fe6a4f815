// A sampler's keys and values: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/key_cache.h"

#include <algorithm>

#include "longstride/ops/on_device.h"
#include "longstride/ops/profile.h"

namespace longstride {

namespace {

void check_memory(const char* op, const char* name, Device device, const Tensor& t) {
  LONGSTRIDE_CHECK(t.device == device.kind, "{}: {} lies on another device than {}", op, name,
                   name_of(device));
  LONGSTRIDE_CHECK(t.data != nullptr || t.count() == 0, "{}: {} {} has no memory", op, name, t.describe());
}

// (rows, heads, width), part of wider rows perhaps.
void check_rows(const char* op, const char* name, Device device, const Tensor& t, int64_t rows, int64_t heads,
                int64_t width) {
  LONGSTRIDE_CHECK(t.rank == 3 && t.shape[0] == rows && t.shape[1] == heads && t.shape[2] == width,
                   "{}: {} is {}, must be ({}, {}, {})", op, name, t.describe(), rows, heads, width);
  LONGSTRIDE_CHECK(t.stride[2] == 1 || width <= 1,
                   "{}: neighbours in the last axis of {} {} are {} elements apart, must be 1", op, name,
                   t.describe(), t.stride[2]);
  check_memory(op, name, device, t);
}

// A cache that has places for all positions below `end`.
void check_cache(const char* op, Device device, const KeyCache& cache, int64_t end) {
  check_device(op, device);
  const Tensor &k = cache.keys, &v = cache.values;
  LONGSTRIDE_CHECK(
      k.rank == 3 && v.rank == 3 && k.shape[0] == v.shape[0] && k.shape[1] == v.shape[1] && k.contiguous() &&
          v.contiguous(),
      "{}: the cache's keys are {} and its values {}, must be contiguous (B, rows, D) and (B, rows, Dv)", op,
      k.describe(), v.describe());
  LONGSTRIDE_CHECK(is_product_dtype(device, v.dtype) && (k.dtype == v.dtype || k.dtype == DType::f32),
                   "{}: the cache's keys are {} and its values {}, must be {}, keys as values or f32", op,
                   name_of(k.dtype), name_of(v.dtype), product_dtypes(device));
  check_memory(op, "the cache's keys", device, k);
  check_memory(op, "the cache's values", device, v);
  for (const HeadRows& head : cache.heads) {
    LONGSTRIDE_CHECK(
        head.store != nullptr && head.first_row >= 0 && head.first_row + head.store->rows <= k.shape[1],
        "{}: a head's rows begin at row {} and pass the cache's {}", op, head.first_row, k.shape[1]);
    LONGSTRIDE_CHECK(end <= head.store->positions, "{}: position {} of {} that the cache is for", op, end - 1,
                     head.store->positions);
  }
}

void check_kept(const char* op, const char* name, const Tensor& t, const Tensor& cache) {
  const bool known = t.dtype == cache.dtype || t.dtype == DType::f32 ||
                     (cache.dtype == DType::f32 && (t.dtype == DType::bf16 || t.dtype == DType::f16));
  LONGSTRIDE_CHECK(known, "{}: {} is {}, the cache {}; one must be f32, or both the same", op, name,
                   t.describe(), name_of(cache.dtype));
}

}  // namespace

void store_keys(const OpContext& context, const KeyCache& cache, int64_t sequence, int64_t begin,
                const Tensor& keys, const Tensor& values) {
  const char* op = "store_keys";
  const OpTimer timer(op, {.bytes = 2 * (keys.bytes() + values.bytes())});
  LONGSTRIDE_CHECK(begin >= 0, "{}: begin is {}, must not be negative", op, begin);
  check_cache(op, context.device, cache, begin + keys.shape[0]);
  LONGSTRIDE_CHECK(sequence >= 0 && sequence < cache.keys.shape[0], "{}: sequence {} of {}", op, sequence,
                   cache.keys.shape[0]);
  const int64_t heads = static_cast<int64_t>(cache.heads.size());
  check_rows(op, "keys", context.device, keys, keys.shape[0], heads, cache.keys.shape[2]);
  check_rows(op, "values", context.device, values, keys.shape[0], heads, cache.values.shape[2]);
  check_kept(op, "keys", keys, cache.keys);
  check_kept(op, "values", values, cache.values);
  if (on_gpu(context.device)) return cuda::store_keys(context, cache, sequence, begin, keys, values);
  cpu::store_keys(context, cache, sequence, begin, keys, values);
}

void attention_one(const OpContext& context, const KeyCache& cache, std::span<const int64_t> positions,
                   const Tensor& q, float scale, const Tensor& o) {
  const char* op = "attention_one";
  const OpTimer timer(op, {});
  LONGSTRIDE_CHECK(!on_gpu(context.device), "{}: runs on the CPU, not on {}", op, name_of(context.device));
  const auto last = std::max_element(positions.begin(), positions.end());
  check_cache(op, context.device, cache, last == positions.end() ? 0 : *last + 1);
  const int64_t batch = cache.keys.shape[0], heads = static_cast<int64_t>(cache.heads.size());
  LONGSTRIDE_CHECK(static_cast<int64_t>(positions.size()) == batch, "{}: {} positions of {} sequences", op,
                   positions.size(), batch);
  for (const int64_t position : positions)
    LONGSTRIDE_CHECK(position >= -1, "{}: position is {}, must be 0 or more, or -1", op, position);
  check_rows(op, "q", context.device, q, batch, heads, cache.keys.shape[2]);
  check_rows(op, "o", context.device, o, batch, heads, cache.values.shape[2]);
  LONGSTRIDE_CHECK(q.dtype == DType::f32 && o.dtype == DType::f32, "{}: q is {} and o {}, must be f32", op,
                   name_of(q.dtype), name_of(o.dtype));
  cpu::attention_one(context, cache, positions, q, scale, o);
}

}  // namespace longstride
