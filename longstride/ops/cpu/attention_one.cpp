// Attention of one query a sequence and head, for sampling: each key and value is read once, so memory sets
// the pace. A task is a sequence, a head and a piece of its keys; pieces are of fixed size and joined in
// order: the same bits for any number of threads. No scratch; what a thread keeps between calls grows to
// the most that a call needed.
#include <algorithm>
#include <cmath>
#include <limits>

#include "longstride/ops/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/attention_one.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

#ifndef LONGSTRIDE_OPS_CPU_ATTENTION_ONE_
#define LONGSTRIDE_OPS_CPU_ATTENTION_ONE_
namespace longstride::cpu {
namespace {

// Rows of keys or values of one sequence and head.
template <class T>
struct CachedRows {
  const T* data = nullptr;
  int64_t stride = 0;
  const T* row(int64_t position) const { return data + position * stride; }
  void prefetch(int64_t position, int64_t width) const {
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = 0; i < width; i += kLine) __builtin_prefetch(row(position) + i);
  }
};

// The softmax over some of a query's keys: o holds the sum of exp(score - highest) v.
struct PartialSum {
  float highest = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

template <class T>
struct PieceOfKeys {
  const float* q;
  CachedRows<T> k, v;
  std::span<const int64_t> keys;
  int64_t width, v_width;
  float scale;
};

}  // namespace
}  // namespace longstride::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

constexpr int64_t kLanes = HWY_LANES(float);
// The maximum moves once for each group of so many keys.
constexpr int64_t kGroup = 64;
// Keys are fetched so many rows ahead of their use.
constexpr int64_t kAhead = 16;

template <class T>
HWY_INLINE float dot(const float* a, const T* b, int64_t width) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  auto sums = hn::Zero(d), others = hn::Zero(d);
  auto rest = hn::Zero(one);
  int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    sums = hn::MulAdd(hn::LoadU(d, a + i), load_as_float(d, b + i), sums);
    others = hn::MulAdd(hn::LoadU(d, a + i + kLanes), load_as_float(d, b + i + kLanes), others);
  }
  if (i + kLanes <= width) {
    sums = hn::MulAdd(hn::LoadU(d, a + i), load_as_float(d, b + i), sums);
    i += kLanes;
  }
  for (; i < width; ++i) rest = hn::MulAdd(hn::LoadU(one, a + i), load_as_float(one, b + i), rest);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sums, others))) + hn::GetLane(rest);
}

// o[begin, begin + kVectors of d) = rescale o + sum of weights v
template <int kVectors, class D, class T>
HWY_INLINE void add_values(D d, const CachedRows<T>& v, std::span<const int64_t> keys, const float* weights,
                           float rescale, int64_t begin, float* o) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> sums[kVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kVectors; ++j)
    sums[j] = hn::Mul(hn::Set(d, rescale), hn::LoadU(d, o + begin + j * lanes));
  for (size_t i = 0; i < keys.size(); ++i) {
    const hn::Vec<D> weight = hn::Set(d, weights[i]);
    const T* row = v.row(keys[i]) + begin;
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j)
      sums[j] = hn::MulAdd(weight, load_as_float(d, row + j * lanes), sums[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < kVectors; ++j) hn::StoreU(sums[j], d, o + begin + j * lanes);
}

template <class T>
HWY_INLINE PartialSum attend(const PieceOfKeys<T>& p, float* o) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  std::fill_n(o, p.v_width, 0.0f);
  PartialSum total;
  HWY_ALIGN float weights[kGroup];
  for (size_t begin = 0; begin < p.keys.size(); begin += kGroup) {
    const auto group = p.keys.subspan(begin, std::min<size_t>(kGroup, p.keys.size() - begin));
    const float before = total.highest;
    for (size_t i = 0; i < group.size(); ++i) {
      if (begin + i + kAhead < p.keys.size()) p.k.prefetch(p.keys[begin + i + kAhead], p.width);
      p.v.prefetch(group[i], p.v_width);
      weights[i] = p.scale * dot(p.q, p.k.row(group[i]), p.width);
      total.highest = std::max(total.highest, weights[i]);
    }
    const float rescale = std::exp(before - total.highest);
    for_each_vector(static_cast<int64_t>(group.size()), [&](auto tag, int64_t i) HWY_ATTR {
      const auto shifted = hn::Sub(hn::LoadU(tag, weights + i), hn::Set(tag, total.highest));
      hn::StoreU(exponential(tag, shifted), tag, weights + i);
    });
    total.sum *= rescale;
    for (size_t i = 0; i < group.size(); ++i) total.sum += weights[i];
    int64_t column = 0;
    for (; column + 4 * kLanes <= p.v_width; column += 4 * kLanes)
      add_values<4>(d, p.v, group, weights, rescale, column, o);
    for (; column + kLanes <= p.v_width; column += kLanes)
      add_values<1>(d, p.v, group, weights, rescale, column, o);
    for (; column < p.v_width; ++column) add_values<1>(one, p.v, group, weights, rescale, column, o);
  }
  return total;
}

PartialSum attend_f32(const PieceOfKeys<float>& p, float* o) { return attend(p, o); }
PartialSum attend_bf16(const PieceOfKeys<Bf16>& p, float* o) { return attend(p, o); }

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(attend_f32);
HWY_EXPORT(attend_bf16);

namespace {

// Keys of one task: enough that joining costs nothing, few enough that the tasks of a few heads share out
// well.
constexpr size_t kPiece = 1024;
// Waking the other threads costs about as much as reading this much.
constexpr int64_t kShareFrom = int64_t{32} << 10;

// The keys of the present position, by pattern: layers repeat patterns, and finding keys costs about as much
// as reading them.
class KeyLists {
 public:
  std::span<const int64_t> of(const Pattern& pattern, int64_t position) {
    if (position != position_ || used_ == kMost) position_ = position, used_ = 0;
    for (size_t i = 0; i < used_; ++i)
      if (lists_[i].pattern == pattern) return lists_[i].keys;
    if (used_ == lists_.size()) lists_.emplace_back();
    List& list = lists_[used_++];
    list.pattern = pattern;
    keys_of(pattern, position, list.keys);
    return list.keys;
  }

 private:
  static constexpr size_t kMost = 1024;
  struct List {
    Pattern pattern;
    std::vector<int64_t> keys;
  };
  std::vector<List> lists_;  // the first used_ of them are those of position_
  size_t used_ = 0;
  int64_t position_ = -1;
};

struct Task {
  int64_t sequence, head;
  std::span<const int64_t> keys;
  bool first;  // of its sequence and head
  PartialSum result;
};

// o = the softmax over all pieces of one sequence and head, from those of each.
void join(std::span<const Task> pieces, const float* partial, int64_t width, float* o) {
  PartialSum all;
  for (const Task& piece : pieces) all.highest = std::max(all.highest, piece.result.highest);
  std::fill_n(o, width, 0.0f);
  for (const Task& piece : pieces) {
    const float weight = piece.keys.empty() ? 0 : std::exp(piece.result.highest - all.highest);
    all.sum += weight * piece.result.sum;
    for (int64_t i = 0; i < width; ++i) o[i] += weight * partial[i];
    partial += width;
  }
  const float inverse = all.sum == 0 ? 0 : 1 / all.sum;
  for (int64_t i = 0; i < width; ++i) o[i] *= inverse;
}

template <class T>
CachedRows<T> cached_rows(const Tensor& t, int64_t sequence, int64_t head) {
  return {t.as<T>() + sequence * t.stride[0] + head * t.stride[2], t.stride[1]};
}

}  // namespace

void attention_one(const OpContext& context, const LayerPattern& layer, int64_t position, const Tensor& q,
                   const Tensor& k, const Tensor& v, float scale, const Tensor& o) {
  const int64_t batch = q.shape[0], heads = q.shape[1], width = q.shape[2], v_width = v.shape[3];
  thread_local KeyLists lists;
  thread_local std::vector<Task> tasks_of_thread;
  thread_local std::vector<float> partial_of_thread;
  std::vector<Task>& tasks = tasks_of_thread;  // those of the caller, for all threads
  tasks.clear();
  int64_t pairs = 0;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads; ++h) {
      const std::span<const int64_t> keys = lists.of(layer.for_head(h, heads), position);
      pairs += static_cast<int64_t>(keys.size());
      size_t begin = 0;
      do {  // also for no keys at all
        const size_t size = std::min(kPiece, keys.size() - begin);
        tasks.push_back({b, h, keys.subspan(begin, size), begin == 0, {}});
        begin += size;
      } while (begin < keys.size());
    }
  const int64_t count = static_cast<int64_t>(tasks.size());
  partial_of_thread.resize(std::max<size_t>(partial_of_thread.size(), count * v_width));
  float* const partial = partial_of_thread.data();

  const int team = pairs * (width + v_width) * size_of(k.dtype) < kShareFrom ? 1 : threads();
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t i = 0; i < count; ++i) {
    Task& task = tasks[i];
    const float* query = q.as<float>() + task.sequence * q.stride[0] + task.head * q.stride[1];
    const auto piece = [&]<class T>(T) {
      return PieceOfKeys<T>{query,
                            cached_rows<T>(k, task.sequence, task.head),
                            cached_rows<T>(v, task.sequence, task.head),
                            task.keys,
                            width,
                            v_width,
                            scale};
    };
    task.result = k.dtype == DType::bf16
                      ? HWY_DYNAMIC_DISPATCH(attend_bf16)(piece(Bf16()), partial + i * v_width)
                      : HWY_DYNAMIC_DISPATCH(attend_f32)(piece(0.0f), partial + i * v_width);
  }
  for (int64_t begin = 0, end = 1; begin < count; begin = end++) {
    while (end < count && !tasks[end].first) ++end;
    const Task& task = tasks[begin];
    join({&task, static_cast<size_t>(end - begin)}, partial + begin * v_width, v_width,
         o.as<float>() + task.sequence * o.stride[0] + task.head * o.stride[1]);
  }
}

}  // namespace longstride::cpu
#endif
