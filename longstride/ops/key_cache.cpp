#include "longstride/ops/key_cache.h"

#include <algorithm>

namespace longstride {

namespace {

// Checks (rows, heads, width), perhaps part of wider rows.
void check_rows(const Arguments& arguments, const char* name, const Tensor& t, int64_t rows, int64_t heads,
                int64_t width) {
  LONGSTRIDE_CHECK(t.rank == 3 && t.shape[0] == rows && t.shape[1] == heads && t.shape[2] == width,
                   "{}: {} is {}, must be ({}, {}, {})", arguments.op(), name, t.describe(), rows, heads,
                   width);
  arguments.neighbours(name, t);
  arguments.memory(name, t);
}

// Checks that a cache has places for all positions below `end`.
void check_cache(const Arguments& arguments, const KeyCache& cache, int64_t end) {
  const char* op = arguments.op();
  const Device device = arguments.device();
  const Tensor &k = cache.keys, &v = cache.values;
  LONGSTRIDE_CHECK(
      k.rank == 3 && v.rank == 3 && k.shape[0] == v.shape[0] && k.shape[1] == v.shape[1] && k.contiguous() &&
          v.contiguous(),
      "{}: the cache's keys are {} and its values {}, must be contiguous (B, rows, D) and (B, rows, Dv)", op,
      k.describe(), v.describe());
  LONGSTRIDE_CHECK(is_product_dtype(device, v.dtype) && (k.dtype == v.dtype || k.dtype == DType::f32),
                   "{}: the cache's keys are {} and its values {}, must be {}, keys as values or f32", op,
                   name_of(k.dtype), name_of(v.dtype), product_dtypes(device));
  arguments.memory("the cache's keys", k);
  arguments.memory("the cache's values", v);
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

OpWork StoreKeys::work() const { return {.bytes = 2 * (keys.bytes() + values.bytes())}; }

void StoreKeys::check(const Arguments& arguments) const {
  const char* op = name();
  LONGSTRIDE_CHECK(begin >= 0, "{}: begin is {}, must not be negative", op, begin);
  check_cache(arguments, cache, begin + keys.shape[0]);
  LONGSTRIDE_CHECK(sequence >= 0 && sequence < cache.keys.shape[0], "{}: sequence {} of {}", op, sequence,
                   cache.keys.shape[0]);
  const int64_t heads = static_cast<int64_t>(cache.heads.size());
  check_rows(arguments, "keys", keys, keys.shape[0], heads, cache.keys.shape[2]);
  check_rows(arguments, "values", values, keys.shape[0], heads, cache.values.shape[2]);
  check_kept(op, "keys", keys, cache.keys);
  check_kept(op, "values", values, cache.values);
}

OpWork AttentionOne::work() const { return {}; }

void AttentionOne::check(const Arguments& arguments) const {
  const char* op = name();
  const auto last = std::max_element(positions.begin(), positions.end());
  check_cache(arguments, cache, last == positions.end() ? 0 : *last + 1);
  const int64_t batch = cache.keys.shape[0], heads = static_cast<int64_t>(cache.heads.size());
  LONGSTRIDE_CHECK(static_cast<int64_t>(positions.size()) == batch, "{}: {} positions of {} sequences", op,
                   positions.size(), batch);
  for (const int64_t position : positions)
    LONGSTRIDE_CHECK(position >= -1, "{}: position is {}, must be 0 or more, or -1", op, position);
  check_rows(arguments, "q", q, batch, heads, cache.keys.shape[2]);
  check_rows(arguments, "o", o, batch, heads, cache.values.shape[2]);
  LONGSTRIDE_CHECK(q.dtype == DType::f32 && o.dtype == DType::f32, "{}: q is {} and o {}, must be f32", op,
                   name_of(q.dtype), name_of(o.dtype));
}

}  // namespace longstride
