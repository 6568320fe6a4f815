// Checks a sampler's key cache: the rows that store_keys writes, position by position and many at a time;
// and attention of one position at a time to it, for sequences at different positions, against the
// definition.
#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "longstride/verify/check_attention.h"
#include "longstride/verify/check_attention_storage.h"
#include "longstride/verify/layer_cache.h"

namespace longstride::verify {

namespace {

// The dtypes of a cache: keys, values.
using KeptTypes = std::pair<DType, DType>;

std::vector<KeptTypes> kept_types(const AttentionCase& c, Device device) {
  std::vector<KeptTypes> types;
  if (c.dtype == DType::f32) types.push_back({DType::f32, DType::f32});
  for (const DType narrow : narrow_dtypes(device)) {
    if (c.dtype != DType::f32 && c.dtype != narrow) continue;
    types.push_back({narrow, narrow});
    types.push_back({DType::f32, narrow});
  }
  return types;
}

std::string name_of(const KeptTypes& kept) {
  return fmt::format("{} keys, {} values kept", name_of(kept.first), name_of(kept.second));
}

// Positions [begin, end) of one sequence of (B, N, H, D), as (N, H, D).
Tensor part_of(Tensor t, int64_t sequence, int64_t begin, int64_t end) {
  t.data = static_cast<char*>(t.data) + (sequence * t.stride[0] + begin * t.stride[1]) * size_of(t.dtype);
  t.rank = 3;
  t.shape = {end - begin, t.shape[2], t.shape[3]};
  t.stride = {t.stride[1], t.stride[2], t.stride[3]};
  return t;
}

// The rows (B, rows, width) of a cache after keys or values (B, N, H, width) were stored one by one.
std::vector<float> expected_rows(const AttentionCase& c, const KeyCache& cache, const Tensor& kept,
                                 const std::vector<float>& values) {
  const int64_t rows = kept.shape[1], width = kept.shape[2];
  std::vector<float> expected(c.shape.batch * rows * width, std::numeric_limits<float>::quiet_NaN());
  for (int64_t b = 0; b < c.shape.batch; ++b)
    for (int64_t k = 0; k < c.n; ++k)
      for (int64_t h = 0; h < c.shape.heads; ++h)
        for_rows_of_key(*cache.heads[h].store, k, k + 1, [&](int32_t row) {
          const float* from = &values[((b * c.n + k) * c.shape.heads + h) * width];
          std::transform(from, from + width, &expected[(b * rows + cache.heads[h].first_row + row) * width],
                         [&](float value) { return rounded_to(kept.dtype, value); });
        });
  return expected;
}

bool same_rows(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return x == y || (x != x && y != y); });
}

Check check_stored(const AttentionCase& c, Device device, const AttentionValues<float>& inputs,
                   const KeptTypes& kept, int64_t at_a_time) {
  AttentionStorage qkv(c, device, {c.shape.width, c.shape.width, c.shape.v_width});
  qkv.write(0, inputs.q), qkv.write(1, inputs.k), qkv.write(2, inputs.v);
  const LayerCache cache(parse_schedule(c.pattern).layer(0), c.n, c.shape, device, kept.first, kept.second);
  for (int64_t b = 0; b < c.shape.batch; ++b)
    for (int64_t begin = 0; begin < c.n; begin += at_a_time) {
      const int64_t end = std::min(c.n, begin + at_a_time);
      run({device, nullptr},
          StoreKeys{*cache, b, begin, part_of(qkv[1], b, begin, end), part_of(qkv[2], b, begin, end)});
    }
  const bool same = same_rows(cache.keys(), expected_rows(c, *cache, (*cache).keys, inputs.k)) &&
                    same_rows(cache.values(), expected_rows(c, *cache, (*cache).values, inputs.v));
  return {c.name("stored") + fmt::format(", {}, {} at a time", name_of(kept), at_a_time),
          same ? 0 : std::numeric_limits<double>::infinity(), 0};
}

// o of attention_one at every position, in the layout of the forward's o. Each sequence begins a step after
// the one before it, and rests before and after.
std::vector<float> one_by_one(const AttentionCase& c, const AttentionValues<float>& inputs,
                              const KeptTypes& kept) {
  const auto [batch, heads, width, v_width] = c.shape;
  const LayerCache cache(parse_schedule(c.pattern).layer(0), c.n, c.shape, {}, kept.first, kept.second);
  std::vector<float> o(inputs.v.size());
  std::vector<float> queries(batch * (heads * width + c.gap)), results(batch * (heads * v_width + c.gap));
  const auto rows = [&](std::vector<float>& memory, int64_t columns) {
    return Tensor(memory.data(), DType::f32, {c.shape.batch, columns + c.gap}).columns(0, columns);
  };
  const Tensor q = rows(queries, heads * width), result = rows(results, heads * v_width);
  const auto values = [&](const std::vector<float>& all, int64_t b, int64_t position, int64_t columns) {
    return Tensor(const_cast<float*>(all.data()) + (b * c.n + position) * c.shape.heads * columns, DType::f32,
                  {1, c.shape.heads, columns});
  };
  for (int64_t time = 0; time < c.n + batch - 1; ++time) {
    std::vector<int64_t> positions;
    for (int64_t b = 0; b < batch; ++b) positions.push_back(time < b || time >= b + c.n ? -1 : time - b);
    std::fill(results.begin(), results.end(), std::numeric_limits<float>::quiet_NaN());
    for (int64_t b = 0; b < batch; ++b) {
      if (positions[b] < 0) continue;
      run({}, StoreKeys{*cache, b, positions[b], values(inputs.k, b, positions[b], width),
                        values(inputs.v, b, positions[b], v_width)});
      std::copy_n(values(inputs.q, b, positions[b], width).as<float>(), heads * width,
                  q.as<float>() + b * q.stride[0]);
    }
    run({}, AttentionOne{*cache, positions, q.split_last(heads), c.scale(), result.split_last(heads)});
    for (int64_t b = 0; b < batch; ++b) {
      const float* from = result.as<float>() + b * result.stride[0];
      if (positions[b] >= 0)
        std::copy_n(from, heads * v_width, &o[(b * c.n + positions[b]) * heads * v_width]);
      else if (std::any_of(from, from + heads * v_width, [](float value) { return value == value; }))
        o[0] = std::numeric_limits<float>::quiet_NaN();  // written while it rests
    }
  }
  return o;
}

}  // namespace

void check_key_cache(const AttentionCase& c, Device device, const AttentionValues<float>& inputs,
                     double floor, std::vector<Check>& checks) {
  for (const KeptTypes& kept : kept_types(c, device)) {
    for (const int64_t at_a_time : {int64_t{1}, int64_t{7}, c.n})
      checks.push_back(check_stored(c, device, inputs, kept, at_a_time));
    if (device.kind != DeviceKind::cpu || c.dtype != DType::f32) continue;
    AttentionValues<float> rounded = inputs;
    for (float& key : rounded.k) key = rounded_to(kept.first, key);
    for (float& value : rounded.v) value = rounded_to(kept.second, value);
    checks.push_back(compare(c.name("one by one") + ", " + name_of(kept), one_by_one(c, inputs, kept),
                             by_definition<float>(c, rounded).o, by_definition<double>(c, rounded).o, floor));
  }
}

}  // namespace longstride::verify
