// Attention of one query a sequence and head, for sampling: each key and value is read once, so memory sets
// the pace. One task a sequence and head, keys in the order of keys_of: the same bits for any number of
// threads. No scratch.
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/attention_one.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/attention_tile-inl.h"
#include "longstride/ops/cpu/attention_tile.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu {
namespace HWY_NAMESPACE {

HWY_INLINE float dot(const float* a, const float* b, int64_t width) {
  const Lanes d;
  Vector sums = hn::Zero(d), others = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    sums = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sums);
    others = hn::MulAdd(hn::LoadU(d, a + i + kLanes), hn::LoadU(d, b + i + kLanes), others);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(sums, others)));
  for (; i < width; ++i) total += a[i] * b[i];
  return total;
}

// o = rescale o + weight v
HWY_INLINE void add_scaled(float rescale, float weight, const float* v, int64_t width, float* o) {
  const Lanes d;
  const Vector rescales = hn::Set(d, rescale), weights = hn::Set(d, weight);
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    hn::StoreU(hn::MulAdd(weights, hn::LoadU(d, v + i), hn::Mul(rescales, hn::LoadU(d, o + i))), d, o + i);
  for (; i < width; ++i) o[i] = rescale * o[i] + weight * v[i];
}

// Keys are taken kAttentionTile at a time: the running maximum moves once for each of these groups.
void attend_one(const float* q, const HeadRows& k, const HeadRows& v, std::span<const int64_t> keys,
                int64_t width, int64_t v_width, float scale, float* o) {
  std::fill_n(o, v_width, 0.0f);
  float highest = -std::numeric_limits<float>::infinity(), sum = 0;
  float scores[kAttentionTile];
  for (size_t begin = 0; begin < keys.size(); begin += kAttentionTile) {
    const auto group = keys.subspan(begin, std::min<size_t>(kAttentionTile, keys.size() - begin));
    const float before = highest;
    for (size_t i = 0; i < group.size(); ++i) {
      scores[i] = scale * dot(q, k.f32(group[i]), width);
      highest = std::max(highest, scores[i]);
    }
    float rescale = std::exp(before - highest);
    sum *= rescale;
    for (size_t i = 0; i < group.size(); ++i) {
      const float weight = std::exp(scores[i] - highest);
      sum += weight;
      add_scaled(rescale, weight, v.f32(group[i]), v_width, o);
      rescale = 1;
    }
  }
  const float inverse = sum == 0 ? 0 : 1 / sum;
  for (int64_t i = 0; i < v_width; ++i) o[i] *= inverse;
}

}  // namespace HWY_NAMESPACE
}  // namespace longstride::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(attend_one);

void attention_one(const OpContext& context, const LayerPattern& layer, int64_t position, const Tensor& q,
                   const Tensor& k, const Tensor& v, float scale, const Tensor& o) {
  const int64_t batch = q.shape[0], heads = q.shape[1];
  // Lists of keys outlive the call, so that sampling does not allocate position after position.
  thread_local std::vector<std::vector<int64_t>> lists;
  thread_local std::vector<Pattern> patterns;
  thread_local std::vector<size_t> list_of_head;
  patterns.clear(), list_of_head.clear();
  for (int64_t h = 0; h < heads; ++h) {
    const Pattern pattern = layer.for_head(h, heads);
    const size_t found = std::find(patterns.begin(), patterns.end(), pattern) - patterns.begin();
    list_of_head.push_back(found);
    if (found < patterns.size()) continue;
    patterns.push_back(pattern);
    if (lists.size() < patterns.size()) lists.emplace_back();
    lists[found].clear();
    keys_of(pattern, position, lists[found]);
  }
  int64_t pairs = 0;
  for (const size_t list : list_of_head) pairs += batch * static_cast<int64_t>(lists[list].size());
  const int team = team_for(pairs, q.shape[2] + v.shape[3]);
  // The threads read the lists of the one that called.
  const std::vector<std::vector<int64_t>>& all = lists;
  const std::vector<size_t>& list_of = list_of_head;
#pragma omp parallel for schedule(dynamic) num_threads(team)
  for (int64_t index = 0; index < batch * heads; ++index) {
    const int64_t b = index / heads, h = index % heads;
    HWY_DYNAMIC_DISPATCH(attend_one)
    (q.as<float>() + b * q.stride[0] + h * q.stride[1], head_rows(k, b, h), head_rows(v, b, h),
     all[list_of[h]], q.shape[2], v.shape[3], scale, o.as<float>() + b * o.stride[0] + h * o.stride[1]);
  }
}

}  // namespace longstride::cpu
#endif
