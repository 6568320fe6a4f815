// For sampling: attention of one position of each sequence and head (contract: longstride/ops/key_cache.h).
// Each key and value is read once, so memory sets the pace. A task is a sequence, a head and a piece of its
// keys. Pieces have a fixed size and are joined in order: the same bits for any number of threads, whatever
// other sequences do. No scratch; the memory that a thread keeps between calls grows to the most that a call
// needed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "longstride/base/threads.h"
#include "longstride/ops/key_cache.h"

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
  const T* row(int64_t index) const { return data + index * stride; }
  void prefetch(int64_t index, int64_t width) const {
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = 0; i < width; i += kLine) __builtin_prefetch(row(index) + i);
  }
};

// The softmax over some of a query's keys: o holds the sum of exp(score - highest) v.
struct PartialSum {
  float highest = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

template <class K, class V>
struct PieceOfKeys {
  const float* q;
  CachedRows<K> k;
  CachedRows<V> v;
  std::span<const int32_t> rows;
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
// The maximum moves once for each group of this many keys.
constexpr int64_t kGroup = 64;
// Keys are fetched this many rows before they are used.
constexpr int64_t kAhead = 16;

// If the row is bf16, load_two takes the elements at even places first, within 2 kLanes elements of a row.
// Vectors that are multiplied with such rows are kept in the same order: moved there from `from`, and back
// again.
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

// Four floats whose sum is the sum of all lanes.
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

// The product of q (in the order of load_two) and one key, as four floats that are still to be added.
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
HWY_INLINE void add_pairs(const CachedRows<T>& v, std::span<const int32_t> rows, const float* weights,
                          float rescale, int64_t begin, float* o) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  V sums[2 * kPairs];
#pragma GCC unroll 8
  for (int j = 0; j < 2 * kPairs; ++j)
    sums[j] = hn::Mul(hn::Set(d, rescale), hn::LoadU(d, o + begin + j * kLanes));
  for (size_t i = 0; i < rows.size(); ++i) {
    const V weight = hn::Set(d, weights[i]);
    const T* row = v.row(rows[i]) + begin;
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
HWY_INLINE void add_vector(D d, const CachedRows<T>& v, std::span<const int32_t> rows, const float* weights,
                           float rescale, int64_t begin, float* o) {
  hn::Vec<D> sum = hn::Mul(hn::Set(d, rescale), hn::LoadU(d, o + begin));
  for (size_t i = 0; i < rows.size(); ++i)
    sum = hn::MulAdd(hn::Set(d, weights[i]), load_as_float(d, v.row(rows[i]) + begin), sum);
  hn::StoreU(sum, d, o + begin);
}

// o (v_width) = the sum of exp(score - highest) v. `workspace` holds width + v_width floats.
template <class K, class V>
HWY_INLINE PartialSum attend(const PieceOfKeys<K, V>& p, float* workspace, float* o) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  float *const q = workspace, *const sums = workspace + p.width;
  reorder<K>(Order::to_pairs, p.q, p.width, q);
  std::fill_n(sums, p.v_width, 0.0f);
  PartialSum total;
  HWY_ALIGN float quarters[4 * kGroup], weights[kGroup];
  for (size_t begin = 0; begin < p.rows.size(); begin += kGroup) {
    const auto group = p.rows.subspan(begin, std::min<size_t>(kGroup, p.rows.size() - begin));
    for (size_t i = 0; i < group.size(); ++i) {
      if (begin + i + kAhead < p.rows.size()) p.k.prefetch(p.rows[begin + i + kAhead], p.width);
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
    // The elements that fill up the last vector are not keys.
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
  reorder<V>(Order::from_pairs, sums, p.v_width, o);
  return total;
}

PartialSum attend_f32(const PieceOfKeys<float, float>& p, float* workspace, float* o) {
  return attend(p, workspace, o);
}
PartialSum attend_bf16(const PieceOfKeys<Bf16, Bf16>& p, float* workspace, float* o) {
  return attend(p, workspace, o);
}
PartialSum attend_mixed(const PieceOfKeys<float, Bf16>& p, float* workspace, float* o) {
  return attend(p, workspace, o);
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(attend_f32);
HWY_EXPORT(attend_bf16);
HWY_EXPORT(attend_mixed);

namespace {

// Keys of one task: enough that joining costs nothing, few enough that the threads share the tasks of a few
// heads evenly.
constexpr size_t kPiece = 1024;
// Waking the other threads costs about as much as reading this many bytes.
constexpr int64_t kShareFrom = int64_t{32} << 10;

// The rows that a position reads, each key once.
void list_rows(const KeyStore& store, int64_t position, std::vector<int32_t>& rows) {
  const Reading reading = reading_of(store, position);
  rows.clear();
  rows.reserve(static_cast<size_t>(reading.candidates));
  for (int t = 0; t < reading.term_count; ++t) {
    const TermReading& term = reading.terms[t];
    for (int32_t j = 0; j < term.count; ++j)
      if (t == 0 || !read_before(store, reading, t, term.key_at(j))) rows.push_back(term.row_at(j));
  }
}

// The rows of the present positions, by store. Layers and heads have the same stores, sequences may have the
// same positions, and finding rows costs about as much as reading them.
class RowLists {
 public:
  // Forgets what was listed for other positions.
  void move_to(std::span<const int64_t> positions) {
    const bool same = std::equal(positions.begin(), positions.end(), positions_.begin(), positions_.end());
    if (same && used_ < kMostStores) return;
    positions_.assign(positions.begin(), positions.end());
    used_ = 0;
    same_.resize(positions.size());
    for (size_t b = 0; b < positions.size(); ++b)
      same_[b] = std::find(positions.begin(), positions.end(), positions[b]) - positions.begin();
  }
  std::span<const int32_t> of(const KeyStore& store, size_t sequence) {
    const size_t first = same_[sequence];
    StoreLists& lists = of_store(store);
    if (!lists.listed[first]) list_rows(store, positions_[first], lists.rows[first]);
    lists.listed[first] = true;
    return lists.rows[first];
  }

 private:
  struct StoreLists {
    const KeyStore* store = nullptr;
    KeyStore copy;                           // because another store may take its address
    std::vector<std::vector<int32_t>> rows;  // by the first sequence of a position
    std::vector<bool> listed;
  };
  StoreLists& of_store(const KeyStore& store) {
    for (size_t i = 0; i < used_; ++i)
      if (stores_[i].store == &store && stores_[i].copy == store) return stores_[i];
    if (used_ == stores_.size()) stores_.emplace_back();
    StoreLists& lists = stores_[used_++];
    lists.store = &store;
    lists.copy = store;
    lists.rows.resize(positions_.size());
    lists.listed.assign(positions_.size(), false);
    return lists;
  }
  static constexpr size_t kMostStores = 1024;
  std::vector<int64_t> positions_;
  std::vector<size_t> same_;        // (B) first sequence at the same position
  std::vector<StoreLists> stores_;  // the first used_ of them are those of positions_
  size_t used_ = 0;
};

struct Task {
  int64_t sequence, head;
  std::span<const int32_t> rows;
  bool first;  // of its sequence and head
  PartialSum result;
};

// o = the softmax over all keys of one sequence and head, joined from its pieces.
void join(std::span<const Task> pieces, const float* partial, int64_t width, float* o) {
  PartialSum all;
  for (const Task& piece : pieces) all.highest = std::max(all.highest, piece.result.highest);
  std::fill_n(o, width, 0.0f);
  for (const Task& piece : pieces) {
    const float weight = piece.rows.empty() ? 0 : std::exp(piece.result.highest - all.highest);
    all.sum += weight * piece.result.sum;
    for (int64_t i = 0; i < width; ++i) o[i] += weight * partial[i];
    partial += width;
  }
  const float inverse = all.sum == 0 ? 0 : 1 / all.sum;
  for (int64_t i = 0; i < width; ++i) o[i] *= inverse;
}

template <class T>
CachedRows<T> cached_rows(const Tensor& t, int64_t sequence, int64_t first_row) {
  return {t.as<T>() + sequence * t.stride[0] + first_row * t.stride[1], t.stride[1]};
}

PartialSum attend_to(const KeyCache& cache, const Task& task, const float* q, float scale, float* workspace,
                     float* o) {
  const auto piece = [&]<class K, class V>(K, V) {
    const int64_t first_row = cache.heads[task.head].first_row;
    return PieceOfKeys<K, V>{q,
                             cached_rows<K>(cache.keys, task.sequence, first_row),
                             cached_rows<V>(cache.values, task.sequence, first_row),
                             task.rows,
                             cache.keys.shape[2],
                             cache.values.shape[2],
                             scale};
  };
  if (cache.keys.dtype == DType::bf16)
    return HWY_DYNAMIC_DISPATCH(attend_bf16)(piece(Bf16(), Bf16()), workspace, o);
  if (cache.values.dtype == DType::bf16)
    return HWY_DYNAMIC_DISPATCH(attend_mixed)(piece(0.0f, Bf16()), workspace, o);
  return HWY_DYNAMIC_DISPATCH(attend_f32)(piece(0.0f, 0.0f), workspace, o);
}

}  // namespace

template <>
void compute(const OpContext& context, const AttentionOne& t) {
  const KeyCache& cache = t.cache;
  const std::span<const int64_t> positions = t.positions;
  const Tensor &q = t.q, &o = t.o;
  const int64_t batch = q.shape[0], heads = q.shape[1], width = q.shape[2], v_width = o.shape[2];
  thread_local RowLists lists;
  thread_local std::vector<Task> tasks_of_thread;
  thread_local std::vector<float> workspace_of_thread;
  std::vector<Task>& tasks = tasks_of_thread;  // the caller's, for all threads
  tasks.clear();
  lists.move_to(positions);
  int64_t pairs = 0;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads && positions[b] >= 0; ++h) {
      const std::span<const int32_t> rows = lists.of(*cache.heads[h].store, static_cast<size_t>(b));
      pairs += static_cast<int64_t>(rows.size());
      size_t begin = 0;
      do {  // also if there are no keys
        const size_t size = std::min(kPiece, rows.size() - begin);
        tasks.push_back({b, h, rows.subspan(begin, size), begin == 0, {}});
        begin += size;
      } while (begin < rows.size());
    }
  const int64_t count = static_cast<int64_t>(tasks.size());
  // The partial sums of all tasks, then the workspace of each.
  const int64_t workspace_size = width + v_width;
  workspace_of_thread.resize(
      std::max<size_t>(workspace_of_thread.size(), count * (v_width + workspace_size)));
  float *const partial = workspace_of_thread.data(), *const workspace = partial + count * v_width;

  const int team = pairs * (width + v_width) * size_of(cache.values.dtype) < kShareFrom ? 1 : threads();
  parallel_for(count, team, [&](int64_t i) {
    Task& task = tasks[i];
    const float* query = q.as<float>() + task.sequence * q.stride[0] + task.head * q.stride[1];
    task.result =
        attend_to(cache, task, query, t.scale, workspace + i * workspace_size, partial + i * v_width);
  });
  for (int64_t begin = 0, end = 1; begin < count; begin = end++) {
    while (end < count && !tasks[end].first) ++end;
    const Task& task = tasks[begin];
    join({&task, static_cast<size_t>(end - begin)}, partial + begin * v_width, v_width,
         o.as<float>() + task.sequence * o.stride[0] + task.head * o.stride[1]);
  }
}

}  // namespace longstride::cpu
#endif
