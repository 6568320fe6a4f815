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

// Within 2 kLanes elements of a row, load_two takes those at even places first if the row is bf16. What meets
// such rows is kept in the same order: moved there from `from`, and back again.
enum class Order { to_pairs, from_pairs };
template <class T>
HWY_INLINE void reorder(Order order, const float* from, int64_t width, float* to) {
  std::copy_n(from, width, to);
  if constexpr (std::is_same_v<T, Bf16>) {
    for (int64_t begin = 0; begin + 2 * kLanes <= width; begin += 2 * kLanes)
      for (int64_t i = 0; i < kLanes; ++i)
        for (int64_t odd = 0; odd < 2; ++odd) {
          const int64_t apart = begin + odd * kLanes + i, paired = begin + 2 * i + odd;
          if (order == Order::to_pairs)
            to[apart] = from[paired];
          else
            to[paired] = from[apart];
        }
  }
}

// Four floats whose sum is that of all lanes.
#if HWY_TARGET == HWY_SCALAR
template <class D>
HWY_INLINE void store_quarters(D d, hn::Vec<D> v, float* to) {
  std::fill_n(to, 4, 0.0f);
  hn::Store(v, d, to);
}
#else
template <class D>
HWY_INLINE void store_quarters(D d, hn::Vec<D> v, float* to) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    store_quarters(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), to);
  } else {
    hn::Store(v, d, to);
  }
}
#endif

// The product of q (in the order of load_two) and one key, as four floats to be added.
template <class T>
HWY_INLINE void dot(const float* q, const T* key, int64_t width, float* to) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  auto sums = hn::Zero(d), others = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    hn::Vec<decltype(d)> first, second;
    load_two(d, key + i, first, second);
    sums = hn::MulAdd(hn::LoadU(d, q + i), first, sums);
    others = hn::MulAdd(hn::LoadU(d, q + i + kLanes), second, others);
  }
  if (i + kLanes <= width) {
    sums = hn::MulAdd(hn::LoadU(d, q + i), load_as_float(d, key + i), sums);
    i += kLanes;
  }
  store_quarters(d, hn::Add(sums, others), to);
  auto rest = hn::Zero(one);
  for (; i < width; ++i) rest = hn::MulAdd(hn::LoadU(one, q + i), load_as_float(one, key + i), rest);
  to[0] += hn::GetLane(rest);
}

// o[begin, begin + 2 kPairs vectors) = rescale o + sum of weights v, in the order of load_two.
template <int kPairs, class T>
HWY_INLINE void add_pairs(const CachedRows<T>& v, std::span<const int64_t> keys, const float* weights,
                          float rescale, int64_t begin, float* o) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  V sums[2 * kPairs];
#pragma GCC unroll 8
  for (int j = 0; j < 2 * kPairs; ++j)
    sums[j] = hn::Mul(hn::Set(d, rescale), hn::LoadU(d, o + begin + j * kLanes));
  for (size_t i = 0; i < keys.size(); ++i) {
    const V weight = hn::Set(d, weights[i]);
    const T* row = v.row(keys[i]) + begin;
#pragma GCC unroll 8
    for (int j = 0; j < 2 * kPairs; j += 2) {
      V first, second;
      load_two(d, row + j * kLanes, first, second);
      sums[j] = hn::MulAdd(weight, first, sums[j]);
      sums[j + 1] = hn::MulAdd(weight, second, sums[j + 1]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < 2 * kPairs; ++j) hn::StoreU(sums[j], d, o + begin + j * kLanes);
}

// The same for one vector.
template <class D, class T>
HWY_INLINE void add_vector(D d, const CachedRows<T>& v, std::span<const int64_t> keys, const float* weights,
                           float rescale, int64_t begin, float* o) {
  hn::Vec<D> sum = hn::Mul(hn::Set(d, rescale), hn::LoadU(d, o + begin));
  for (size_t i = 0; i < keys.size(); ++i)
    sum = hn::MulAdd(hn::Set(d, weights[i]), load_as_float(d, v.row(keys[i]) + begin), sum);
  hn::StoreU(sum, d, o + begin);
}

// o (v_width) = the sum of exp(score - highest) v; `room` holds width + v_width floats.
template <class T>
HWY_INLINE PartialSum attend(const PieceOfKeys<T>& p, float* room, float* o) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  float *const q = room, *const sums = room + p.width;
  reorder<T>(Order::to_pairs, p.q, p.width, q);
  std::fill_n(sums, p.v_width, 0.0f);
  PartialSum total;
  HWY_ALIGN float quarters[4 * kGroup], weights[kGroup];
  for (size_t begin = 0; begin < p.keys.size(); begin += kGroup) {
    const auto group = p.keys.subspan(begin, std::min<size_t>(kGroup, p.keys.size() - begin));
    for (size_t i = 0; i < group.size(); ++i) {
      if (begin + i + kAhead < p.keys.size()) p.k.prefetch(p.keys[begin + i + kAhead], p.width);
      p.v.prefetch(group[i], p.v_width);
      dot(q, p.k.row(group[i]), p.width, quarters + 4 * i);
    }
    const int64_t size = static_cast<int64_t>(group.size());
    const int64_t padded = (size + kLanes - 1) / kLanes * kLanes;
    std::fill(quarters + 4 * size, quarters + 4 * padded, 0.0f);
    for (int64_t i = 0; i < padded; i += kLanes) {
      hn::Vec<decltype(d)> a, b, c, e;
      hn::LoadInterleaved4(d, quarters + 4 * i, a, b, c, e);
      hn::Store(hn::Mul(hn::Set(d, p.scale), hn::Add(hn::Add(a, b), hn::Add(c, e))), d, weights + i);
    }
    // What fills up the last vector is no key.
    std::fill(weights + size, weights + padded, -std::numeric_limits<float>::infinity());
    auto highest = hn::Set(d, total.highest);
    for (int64_t i = 0; i < padded; i += kLanes) highest = hn::Max(highest, hn::Load(d, weights + i));
    const float before = total.highest;
    total.highest = hn::GetLane(hn::MaxOfLanes(d, highest));
    const float rescale = std::exp(before - total.highest);
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < padded; i += kLanes) {
      const auto weight = exponential(d, hn::Sub(hn::Load(d, weights + i), hn::Set(d, total.highest)));
      sum = hn::Add(sum, weight);
      hn::Store(weight, d, weights + i);
    }
    total.sum = total.sum * rescale + hn::GetLane(hn::SumOfLanes(d, sum));
    int64_t column = 0;
    for (; column + 4 * kLanes <= p.v_width; column += 4 * kLanes)
      add_pairs<2>(p.v, group, weights, rescale, column, sums);
    for (; column + 2 * kLanes <= p.v_width; column += 2 * kLanes)
      add_pairs<1>(p.v, group, weights, rescale, column, sums);
    for (; column + kLanes <= p.v_width; column += kLanes)
      add_vector(d, p.v, group, weights, rescale, column, sums);
    for (; column < p.v_width; ++column) add_vector(one, p.v, group, weights, rescale, column, sums);
  }
  reorder<T>(Order::from_pairs, sums, p.v_width, o);
  return total;
}

PartialSum attend_f32(const PieceOfKeys<float>& p, float* room, float* o) { return attend(p, room, o); }
PartialSum attend_bf16(const PieceOfKeys<Bf16>& p, float* room, float* o) { return attend(p, room, o); }

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
  thread_local std::vector<float> room_of_thread;
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
  // The partial sums of all tasks, then room for each.
  const int64_t room_size = width + v_width;
  room_of_thread.resize(std::max<size_t>(room_of_thread.size(), count * (v_width + room_size)));
  float *const partial = room_of_thread.data(), *const room = partial + count * v_width;

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
    float *const own_room = room + i * room_size, *const own = partial + i * v_width;
    task.result = k.dtype == DType::bf16 ? HWY_DYNAMIC_DISPATCH(attend_bf16)(piece(Bf16()), own_room, own)
                                         : HWY_DYNAMIC_DISPATCH(attend_f32)(piece(0.0f), own_room, own);
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
