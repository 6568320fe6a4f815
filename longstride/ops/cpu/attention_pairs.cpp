// Attention on bf16 with products of pairs. The algorithm is that of attention_forward.cpp and
// attention_backward.cpp; gradients always take two sweeps, so results are the same bits for any number of
// threads. What differs is the layout, which the instructions dictate:
//
//   c (rows, columns) f32 += a (rows, depth) b (depth, columns),  a as rows of bf16, b as rows of pairs:
//   element (i, j) of b's row i holds b(2 i, j) and b(2 i + 1, j).
//
// Keys are the rows of scores, s^T = K q^T and dp^T = V dO^T, so that K and V are used as they lie in memory
// and q and dO are turned once a query tile: turned(q) (depth / 2, queries) in pairs is a transposition of
// 32-bit words. Then
//   o^T += V^T p^T,  dq^T += K^T ds^T   with p^T, ds^T as pairs of keys, V^T and K^T turned a visit;
//   dv += p^T dO,    dk += ds^T q       with p^T, ds^T as rows, dO and q as pairs of queries.
//
// Rows are padded to kPairWidth with zeros. Tiles of scores are skipped in blocks of kBlock * kBlock that a
// mask leaves empty. Scores are computed for half a tile at a time, and what is turned lies in two halves of
// kHalf columns, one after the other: what a step touches then stays in the first cache.
#include "longstride/ops/cpu/attention_pairs.h"

#include <cmath>
#include <limits>

#include <omp.h>

#include "longstride/ops/cpu/attention_pairs_layout.h"
#include "longstride/ops/cpu/attention_pairs_products.h"

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

namespace {

// A thread's memory. All tiles are kT * padded width of bf16, or the same in f32.
struct PairScratch {
  char* next;
  int64_t wide;  // the larger padded width

  PairScratch(void* memory, int64_t qk_width, int64_t v_width)
      : next(static_cast<char*>(memory)), wide(std::max(pair_width(qk_width), pair_width(v_width))) {
    next += 4 * RowGatherer::kBuffers * kT * wide * 2;  // the gatherer's
  }
  static int64_t bytes(int64_t qk_width, int64_t v_width) {
    const int64_t wide = std::max(pair_width(qk_width), pair_width(v_width));
    return kT * wide * (4 * RowGatherer::kBuffers * 2 + 5 * 2 + 2 * 4) + kT * kT * (2 * 4 + 2 * 2) +
           5 * kT * 4;
  }
  static void lay_out(RowGatherer& gatherer, void* memory, int64_t qk_width, int64_t v_width) {
    const int64_t wide = std::max(pair_width(qk_width), pair_width(v_width));
    for (const int s : {stream::kQueries, stream::kKeys, stream::kValues, stream::kGradients}) {
      const int64_t width = s == stream::kQueries || s == stream::kKeys ? qk_width : v_width;
      gatherer.set_stream(s, static_cast<char*>(memory) + s * RowGatherer::kBuffers * kT * wide * 2,
                          DType::bf16, pair_width(width) * 2, RowGatherer::Place::as_it_lies);
    }
  }
  template <class T>
  T* take(int64_t count) {
    T* here = reinterpret_cast<T*>(next);
    next += count * sizeof(T);
    return here;
  }
};

// 2^x for x <= 0 to about the last place of f32; 0 for -inf. Minimax polynomial on [-1/2, 1/2].
inline __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 y = _mm512_set1_ps(1.327647129e-3f);
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(9.675540961e-3f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.550713092e-2f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(2.402212024e-1f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(6.931469440e-1f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, n);
}

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Which queries may look at each key of a visit; a tile without a mask allows all of its own.
class Allowed {
 public:
  Allowed(const TileMask* mask, int64_t queries, int64_t keys)
      : columns_(whole_), all_(mask == nullptr && queries == kT && keys == kT) {
    if (all_) {
      for (uint32_t& blocks : used.of_keys) blocks = (1u << (kT / kBlock)) - 1;
      return;
    }
    if (mask) {
      columns_ = mask->columns.data();
    } else {
      std::fill_n(whole_, kT, 0);
      std::fill_n(whole_, keys, queries == 64 ? ~uint64_t{0} : (uint64_t{1} << queries) - 1);
    }
    for (int64_t key = 0; key < keys; key += kBlock) {
      const __m512i all =
          _mm512_or_si512(_mm512_loadu_si512(columns_ + key), _mm512_loadu_si512(columns_ + key + 8));
      const __m256i half = _mm256_or_si256(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
      const __m128i quarter = _mm_or_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
      const __m128i bits = _mm_or_si128(quarter, _mm_unpackhi_epi64(quarter, quarter));
      used.of_keys[key / kBlock] = _mm_test_epi16_mask(bits, bits) & 0xf;
    }
  }
  Allowed(const Allowed&) = delete;
  // Every pair of 64 queries and 64 keys.
  bool all() const { return all_; }
  __mmask16 of(int64_t key, int block) const {
    return static_cast<__mmask16>(columns_[key] >> (block * kBlock));
  }
  bool block(int64_t key, int block) const { return used.of_keys[key / kBlock] >> block & 1; }
  UsedBlocks used;

 private:
  const uint64_t* columns_;
  bool all_;
  uint64_t whole_[kT];
};

// What a tile of queries has seen so far, by query, scores being in units of log 2.
struct Running {
  float* highest;
  float* sum;
  float* o;  // turned (Dv, kT), not divided by sum
};

// scores (keys, kHalf) of blocks [first, end) of queries -> weights as pairs of keys (keys / 2, kHalf), and o
// turned (o_rows, kT) rescaled.
template <bool kMasked>
void pair_softmax(const float* scores, int64_t keys, int first, int end, const Allowed& allowed, float scale,
                  int64_t o_rows, const Running& running, uint32_t* weights, RowGatherer& gatherer) {
  const PairOrder order;
  const __m512 scales = _mm512_set1_ps(scale), lowest = _mm512_set1_ps(-kInfinity);
  for (int j = first; j < end; ++j) {
    const float* lane = scores + (j - first) * kBlock;
    __m512 highest = lowest, other = lowest;  // two chains hide the latency of max
    for (int64_t key = 0; key < keys; key += 2) {
      const float* two = lane + key * kHalf;
      const __m512 even = _mm512_loadu_ps(two), odd = _mm512_loadu_ps(two + kHalf);
      if constexpr (kMasked) {
        if (!allowed.block(key, j)) continue;
        highest = _mm512_mask_max_ps(highest, allowed.of(key, j), highest, even);
        other = _mm512_mask_max_ps(other, allowed.of(key + 1, j), other, odd);
      } else {
        highest = _mm512_max_ps(highest, even);
        other = _mm512_max_ps(other, odd);
      }
    }
    const __m512 before = _mm512_loadu_ps(running.highest + j * kBlock);
    highest = _mm512_max_ps(before, _mm512_mul_ps(_mm512_max_ps(highest, other), scales));
    // A query that has seen no key yet keeps -inf; subtracting zero instead keeps NaN away from it.
    const __mmask16 unseen = _mm512_cmp_ps_mask(highest, lowest, _CMP_EQ_OQ);
    const __m512 origin = _mm512_mask_blend_ps(unseen, highest, _mm512_setzero_ps());
    const __m512 rescale = power_of_two(_mm512_sub_ps(before, origin));
    __m512 sum = _mm512_mul_ps(rescale, _mm512_loadu_ps(running.sum + j * kBlock));
    __m512 other_sum = _mm512_setzero_ps();
    // Up to a whole step of depth. Rows of scores beyond the last key hold anything; nothing allows them.
    for (int64_t key = 0; key < depths_of(keys) * kPairWidth; key += 2) {
      uint32_t* to = weights + key / 2 * kHalf + (j - first) * kBlock;
      if (key % 8 == 0) gatherer.step();
      if (kMasked && !allowed.block(key, j)) {
        _mm512_storeu_si512(to, _mm512_setzero_si512());
        continue;
      }
      const float* two = lane + key * kHalf;
      __m512 even = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(two), scales, origin));
      __m512 odd = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(two + kHalf), scales, origin));
      if constexpr (kMasked) {
        even = _mm512_maskz_mov_ps(allowed.of(key, j), even);
        odd = _mm512_maskz_mov_ps(allowed.of(key + 1, j), odd);
      }
      sum = _mm512_add_ps(sum, even);
      other_sum = _mm512_add_ps(other_sum, odd);
      const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order.halves, rounded));
    }
    _mm512_storeu_ps(running.highest + j * kBlock, highest);
    _mm512_storeu_ps(running.sum + j * kBlock, _mm512_add_ps(sum, other_sum));
    if (_mm512_cmp_ps_mask(rescale, _mm512_set1_ps(1.0f), _CMP_NEQ_UQ) == 0) continue;
    for (int64_t row = 0; row < o_rows; ++row) {
      float* o = running.o + turned_at(o_rows, row, j * kBlock);
      _mm512_storeu_ps(o, _mm512_mul_ps(rescale, _mm512_loadu_ps(o)));
    }
  }
}

// From nothing (o is then undefined), or from what earlier passes have written.
inline void begin_queries(const ForwardTask& task, const TilePositions& queries, const Running& running,
                          float* rows) {
  const int64_t wide = pair_width(task.v.width);
  std::fill_n(running.highest, kT, -kInfinity);
  std::fill_n(running.sum, kT, 0.0f);
  if (task.pass == 0) return;
  std::fill_n(rows, kT * wide, 0.0f);
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t position = queries.position[i];
    if (position < 0 || std::isinf(task.lse[position])) continue;
    running.highest[i] = task.lse[position] * kLog2E;
    running.sum[i] = 1;
    copy_as_f32(task.o.row(position), DType::bf16, task.o.width, rows + i * wide);
  }
  turn_words([&](int64_t i) { return reinterpret_cast<const uint32_t*>(rows + i * wide); }, wide, kT, wide,
             running.o);
}

// Natural logarithm of positive normal numbers, to about the last place: x = 2^n m with m in [3/4, 3/2), and
// log m = 2 artanh((m - 1) / (m + 1)).
inline __m512 logarithm(__m512 x) {
  const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  const __m512 n = _mm512_getexp_ps(_mm512_div_ps(x, m));
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 t = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), t2 = _mm512_mul_ps(t, t);
  __m512 y = _mm512_set1_ps(2.0f / 9);
  y = _mm512_fmadd_ps(y, t2, _mm512_set1_ps(2.0f / 7));
  y = _mm512_fmadd_ps(y, t2, _mm512_set1_ps(2.0f / 5));
  y = _mm512_fmadd_ps(y, t2, _mm512_set1_ps(2.0f / 3));
  y = _mm512_fmadd_ps(y, t2, _mm512_set1_ps(2.0f));
  return _mm512_fmadd_ps(n, _mm512_set1_ps(0.693147181f), _mm512_mul_ps(y, t));
}

inline void end_queries(const ForwardTask& task, const TilePositions& queries, const Running& running) {
  float inverse[kT], lse[kT];
  for (int64_t i = 0; i < kT; i += kBlock) {
    const __m512 sum = _mm512_loadu_ps(running.sum + i), highest = _mm512_loadu_ps(running.highest + i);
    // NaN has seen something.
    const __mmask16 seen = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    _mm512_storeu_ps(inverse + i, _mm512_maskz_div_ps(seen, _mm512_set1_ps(1.0f), sum));
    const __m512 total = _mm512_fmadd_ps(highest, _mm512_set1_ps(1 / kLog2E), logarithm(sum));
    _mm512_storeu_ps(lse + i, _mm512_mask_blend_ps(seen, _mm512_set1_ps(-kInfinity), total));
  }
  for (int64_t i = 0; i < queries.count; ++i)
    if (queries.position[i] >= 0) task.lse[queries.position[i]] = lse[i];
  write_turned(running.o, inverse, queries, Write::over, task.o);
  _mm_sfence();
}

// What turns scores and gradients of weights into weights and gradients of scores; lse in units of log 2.
struct Statistics {
  const float* lse;
  const float* delta;
  float scale;
};

// 16 queries of one key.
template <bool kMasked>
void weigh(const float* score, const float* d_weight, const Statistics& statistics, int block,
           __mmask16 allowed, __m512& weight, __m512& d_score) {
  const __m512 lse = _mm512_loadu_ps(statistics.lse + block * kBlock);
  const __m512 delta = _mm512_loadu_ps(statistics.delta + block * kBlock);
  weight =
      power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(score), _mm512_set1_ps(statistics.scale * kLog2E), lse));
  d_score = _mm512_mul_ps(_mm512_mul_ps(weight, _mm512_set1_ps(statistics.scale)),
                          _mm512_sub_ps(_mm512_loadu_ps(d_weight), delta));
  if constexpr (kMasked) {
    weight = _mm512_maskz_mov_ps(allowed, weight);
    d_score = _mm512_maskz_mov_ps(allowed, d_score);
  }
}

// s^T and dp^T (keys, kHalf) of blocks [first, end) of queries -> ds^T as pairs of keys (keys / 2, kHalf).
template <bool kMasked>
void gradient_pairs(const float* scores, const float* d_weights, int64_t keys, int first, int end,
                    const Allowed& allowed, const Statistics& statistics, uint32_t* d_scores,
                    RowGatherer& gatherer) {
  const PairOrder order;
  for (int64_t key = 0; key < depths_of(keys) * kPairWidth; key += 2) {
    if (key % 4 == 0) gatherer.step();
    for (int j = first; j < end; ++j) {
      const int64_t at = key * kHalf + (j - first) * kBlock;
      uint32_t* to = d_scores + key / 2 * kHalf + (j - first) * kBlock;
      if (kMasked && !allowed.block(key, j)) {
        _mm512_storeu_si512(to, _mm512_setzero_si512());
        continue;
      }
      __m512 weight, even, odd;
      weigh<kMasked>(scores + at, d_weights + at, statistics, j, allowed.of(key, j), weight, even);
      weigh<kMasked>(scores + at + kHalf, d_weights + at + kHalf, statistics, j, allowed.of(key + 1, j),
                     weight, odd);
      const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order.halves, rounded));
    }
  }
}

// s^T and dp^T (kHalf, kT) of keys [begin, end) -> p^T and ds^T as rows (kHalf, kT) of bf16.
template <bool kMasked>
void gradient_rows(const float* scores, const float* d_weights, int64_t begin, int64_t end,
                   const Allowed& allowed, const Statistics& statistics, uint16_t* weights,
                   uint16_t* d_scores, RowGatherer& gatherer) {
  for (int64_t key = begin; key < begin + blocks_of(end - begin) * kBlock; ++key) {
    if (key % 2 == 0) gatherer.step();
    for (int j = 0; j < kT / kBlock; j += 2) {
      const int64_t at = (key - begin) * kT + j * kBlock;
      if (kMasked && !allowed.block(key, j) && !allowed.block(key, j + 1)) {
        _mm512_storeu_si512(weights + at, _mm512_setzero_si512());
        _mm512_storeu_si512(d_scores + at, _mm512_setzero_si512());
        continue;
      }
      __m512 p[2], ds[2];
      for (int k = 0; k < 2; ++k)
        weigh<kMasked>(scores + at + k * kBlock, d_weights + at + k * kBlock, statistics, j + k,
                       allowed.of(key, j + k), p[k], ds[k]);
      _mm512_storeu_si512(weights + at, (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]));
      _mm512_storeu_si512(d_scores + at, (__m512i)_mm512_cvtne2ps_pbh(ds[1], ds[0]));
    }
  }
}

// scores^T (keys, queries), `row` apart, = rows (keys, width) from `begin` on times turned (width / 2,
// kHalf), where used.
inline void multiply_scores(Rows rows, int64_t begin, int64_t width, const uint32_t* turned, int key_blocks,
                            int query_blocks, const UsedBlocks& used, float* scores, int64_t row) {
  multiply_pairs({.a = rows.at(begin),
                  .a_row = rows.row,
                  .a_upper = begin == 0 ? rows.half[1] : nullptr,
                  .b = turned,
                  .b_row = kHalf,
                  .c = scores,
                  .c_row = row,
                  .rows = key_blocks,
                  .columns = query_blocks,
                  .depth = depths_of(width),
                  .onto = false,
                  .skip = Skip::results,
                  .used = &used});
}

// Turned results (width, kHalf) = or += turned rows (width, keys) pairs of keys (keys / 2, kHalf), where
// used.
inline void add_turned(const uint16_t* columns, int64_t width, const uint32_t* pairs, int64_t keys,
                       int query_blocks, const UsedBlocks& used, bool onto, float* turned) {
  multiply_pairs({.a = columns,
                  .a_row = kT,
                  .b = pairs,
                  .b_row = kHalf,
                  .c = turned,
                  .c_row = kHalf,
                  .rows = blocks_of(width),
                  .columns = query_blocks,
                  .depth = depths_of(keys),
                  .onto = onto,
                  .skip = Skip::depth_of_columns,
                  .used = &used});
}

// lse in units of log 2 and delta of a tile. A query that saw nothing is never allowed; zero is as good.
inline void gather_statistics(const BackwardTask& task, const TilePositions& queries, float* lse,
                              float* delta) {
  gather_values(task.lse, queries, lse);
  gather_values(task.delta, queries, delta);
  for (int64_t i = 0; i < kT; ++i) lse[i] *= kLog2E;
}

}  // namespace

void pair_forward_tile(const ForwardTask& task, const ForwardTask* next, void* memory,
                       RowGatherer& gatherer) {
  const PairRegisters registers;
  const TilePositions queries = task.queries();
  const int64_t wide = pair_width(task.q.width), v_wide = pair_width(task.v.width);
  const int query_blocks = blocks_of(queries.count);
  PairScratch scratch(memory, task.q.width, task.v.width);
  uint32_t* queries_turned = scratch.take<uint32_t>(wide / 2 * kT);
  uint16_t* values_turned = scratch.take<uint16_t>(v_wide * kT);
  float* scores = scratch.take<float>(kT * kT);
  uint32_t* weights = scratch.take<uint32_t>(kT / 2 * kT);
  float* highest = scratch.take<float>(kT);
  float* sum = scratch.take<float>(kT);
  const Running running{highest, sum, scratch.take<float>(v_wide * kT)};

  if (!gatherer.has(task.index)) request_task(gatherer, task);
  begin_queries(task, queries, running, scratch.take<float>(v_wide * kT));
  gatherer.finish();
  turn_queries(gatherer.rows<uint16_t>(stream::kQueries), queries.count, wide, queries_turned);
  Visits visits = task.keys();
  Visit visit, upcoming;
  bool fresh = task.pass == 0;
  for (bool more = visits.next(visit); more; visit = upcoming, fresh = false) {
    gatherer.finish();
    const Rows key_rows = gatherer.rows<uint16_t>(stream::kKeys),
               value_rows = gatherer.rows<uint16_t>(stream::kValues);
    more = visits.next(upcoming);
    if (more)
      request_keys(gatherer, task, upcoming.tile);
    else if (next)
      request_task(gatherer, *next);
    const int64_t keys = visit.tile.count;
    const Allowed allowed(visit.mask, queries.count, keys);
    turn_rows(value_rows, keys, v_wide, values_turned);
    const auto softmax = allowed.all() ? pair_softmax<false> : pair_softmax<true>;
    for (int first = 0; first < query_blocks; first += kHalfBlocks) {
      const int end = std::min(query_blocks, first + kHalfBlocks), half = first / kHalfBlocks;
      const UsedBlocks used = allowed.used.from(0, first);
      multiply_scores(key_rows, 0, wide, queries_turned + half * wide / 2 * kHalf, blocks_of(keys),
                      end - first, used, scores, kHalf);
      gatherer.step();
      softmax(scores, keys, first, end, allowed, task.scale * kLog2E, fresh ? 0 : v_wide, running, weights,
              gatherer);
      add_turned(values_turned, v_wide, weights, keys, end - first, used, !fresh,
                 running.o + half * v_wide * kHalf);
    }
  }
  if (fresh) std::fill_n(running.o, v_wide * kT, 0.0f);  // nothing was visited
  end_queries(task, queries, running);
}

void pair_backward_query_tile(const BackwardTask& task, const BackwardTask* next, void* memory,
                              RowGatherer& gatherer) {
  const PairRegisters registers;
  const TilePositions queries = task.queries();
  const int64_t wide = pair_width(task.q.width), v_wide = pair_width(task.v.width);
  const int query_blocks = blocks_of(queries.count);
  PairScratch scratch(memory, task.q.width, task.v.width);
  uint32_t* queries_turned = scratch.take<uint32_t>(wide / 2 * kT);
  uint32_t* d_o_turned = scratch.take<uint32_t>(v_wide / 2 * kT);
  uint16_t* keys_turned = scratch.take<uint16_t>(wide * kT);
  float* scores = scratch.take<float>(kT * kT);
  float* d_weights = scratch.take<float>(kT * kT);
  uint32_t* d_scores = scratch.take<uint32_t>(kT / 2 * kT);
  float *lse = scratch.take<float>(kT), *delta = scratch.take<float>(kT), *ones = scratch.take<float>(kT);
  float* dq = scratch.take<float>(wide * kT);
  const Statistics statistics{lse, delta, task.scale};

  if (!gatherer.has(task.index)) request_query_task(gatherer, task);
  gather_statistics(task, queries, lse, delta);
  std::fill_n(ones, kT, 1.0f);
  gatherer.finish();
  turn_queries(gatherer.rows<uint16_t>(stream::kQueries), queries.count, wide, queries_turned);
  turn_queries(gatherer.rows<uint16_t>(stream::kGradients), queries.count, v_wide, d_o_turned);
  Visits visits = task.visits_of_queries();
  Visit visit, upcoming;
  bool fresh = true;
  for (bool more = visits.next(visit); more; visit = upcoming, fresh = false) {
    gatherer.finish();
    const Rows key_rows = gatherer.rows<uint16_t>(stream::kKeys),
               value_rows = gatherer.rows<uint16_t>(stream::kValues);
    more = visits.next(upcoming);
    if (more)
      request_keys(gatherer, task, upcoming.tile);
    else if (next)
      request_query_task(gatherer, *next);
    const int64_t keys = visit.tile.count;
    const Allowed allowed(visit.mask, queries.count, keys);
    turn_rows(key_rows, keys, wide, keys_turned);
    const auto gradients = allowed.all() ? gradient_pairs<false> : gradient_pairs<true>;
    for (int first = 0; first < query_blocks; first += kHalfBlocks) {
      const int end = std::min(query_blocks, first + kHalfBlocks), half = first / kHalfBlocks;
      const UsedBlocks used = allowed.used.from(0, first);
      multiply_scores(key_rows, 0, wide, queries_turned + half * wide / 2 * kHalf, blocks_of(keys),
                      end - first, used, scores, kHalf);
      multiply_scores(value_rows, 0, v_wide, d_o_turned + half * v_wide / 2 * kHalf, blocks_of(keys),
                      end - first, used, d_weights, kHalf);
      gradients(scores, d_weights, keys, first, end, allowed, statistics, d_scores, gatherer);
      add_turned(keys_turned, wide, d_scores, keys, end - first, used, !fresh, dq + half * wide * kHalf);
    }
  }
  if (fresh) std::fill_n(dq, wide * kT, 0.0f);  // nothing was visited
  write_turned(dq, ones, queries, task.pass == 0 ? Write::over : Write::onto, task.dq);
  _mm_sfence();
}

void pair_backward_key_tile(const BackwardTask& task, const BackwardTask* next, void* memory,
                            RowGatherer& gatherer) {
  const PairRegisters registers;
  const TilePositions keys = task.keys();
  const int64_t wide = pair_width(task.q.width), v_wide = pair_width(task.v.width);
  PairScratch scratch(memory, task.q.width, task.v.width);
  uint32_t* queries_turned = scratch.take<uint32_t>(wide / 2 * kT);
  uint32_t* d_o_turned = scratch.take<uint32_t>(v_wide / 2 * kT);
  uint32_t* query_pairs = scratch.take<uint32_t>(kT / 2 * wide);
  uint32_t* d_o_pairs = scratch.take<uint32_t>(kT / 2 * v_wide);
  float* scores = scratch.take<float>(kT * kT);
  float* d_weights = scratch.take<float>(kT * kT);
  uint16_t* weights = scratch.take<uint16_t>(kT * kT);
  uint16_t* d_scores = scratch.take<uint16_t>(kT * kT);
  float *lse = scratch.take<float>(kT), *delta = scratch.take<float>(kT);
  float* dk = scratch.take<float>(kT * wide);
  float* dv = scratch.take<float>(kT * v_wide);
  const Statistics statistics{lse, delta, task.scale};

  if (!gatherer.has(task.index)) request_key_task(gatherer, task);
  gatherer.finish();
  const Rows key_rows = gatherer.rows<uint16_t>(stream::kKeys),
             value_rows = gatherer.rows<uint16_t>(stream::kValues);
  Visits visits = task.visits_of_keys();
  Visit visit, upcoming;
  bool fresh = true;
  for (bool more = visits.next(visit); more; visit = upcoming, fresh = false) {
    gatherer.finish();
    const Rows query_rows = gatherer.rows<uint16_t>(stream::kQueries),
               d_o_rows = gatherer.rows<uint16_t>(stream::kGradients);
    more = visits.next(upcoming);
    if (more)
      request_queries(gatherer, task, upcoming.tile);
    else if (next)
      request_key_task(gatherer, *next);
    const int64_t queries = visit.tile.count;
    const Allowed allowed(visit.mask, queries, keys.count);
    gather_statistics(task, visit.tile, lse, delta);
    turn_queries(query_rows, queries, wide, queries_turned);
    turn_queries(d_o_rows, queries, v_wide, d_o_turned);
    pair_rows(query_rows, queries, wide, query_pairs);
    pair_rows(d_o_rows, queries, v_wide, d_o_pairs);
    const auto gradients = allowed.all() ? gradient_rows<false> : gradient_rows<true>;
    for (int64_t begin = 0; begin < keys.count; begin += kHalf) {
      const int64_t end = std::min(keys.count, begin + kHalf);
      const int key_blocks = blocks_of(end - begin), first = static_cast<int>(begin / kBlock);
      for (int64_t i = 0; i < queries; i += kHalf) {
        const int query_blocks = blocks_of(std::min(queries - i, kHalf));
        const UsedBlocks used = allowed.used.from(first, static_cast<int>(i / kBlock));
        multiply_scores(key_rows, begin, wide, queries_turned + turned_at(wide / 2, 0, i), key_blocks,
                        query_blocks, used, scores + i, kT);
        multiply_scores(value_rows, begin, v_wide, d_o_turned + turned_at(v_wide / 2, 0, i), key_blocks,
                        query_blocks, used, d_weights + i, kT);
      }
      gradients(scores, d_weights, begin, end, allowed, statistics, weights, d_scores, gatherer);
      const UsedBlocks used = allowed.used.from(first, 0);
      const auto add = [&](const uint16_t* a, const uint32_t* b, int64_t width, float* c) {
        multiply_pairs({.a = a,
                        .a_row = kT,
                        .b = b,
                        .b_row = width,
                        .c = c + begin * width,
                        .c_row = width,
                        .rows = key_blocks,
                        .columns = blocks_of(width),
                        .depth = depths_of(queries),
                        .onto = !fresh,
                        .skip = Skip::depth_of_rows,
                        .used = &used});
      };
      add(weights, d_o_pairs, v_wide, dv);
      add(d_scores, query_pairs, wide, dk);
    }
  }
  if (fresh) {  // nothing was visited
    std::fill_n(dk, kT * wide, 0.0f);
    std::fill_n(dv, kT * v_wide, 0.0f);
  }
  const Write write = task.pass == 0 ? Write::over : Write::onto;
  write_pair_rows(dk, wide, keys, write, task.dk);
  write_pair_rows(dv, v_wide, keys, write, task.dv);
  _mm_sfence();
}

}  // namespace longstride::cpu

HWY_POP_ATTRIBUTES

#endif  // LONGSTRIDE_PAIRS

namespace longstride::cpu {

bool multiply_in_pairs(DType dtype) { return dtype == DType::bf16 && pair_engine() != PairEngine::none; }

const char* pair_instruction_set() {
  switch (pair_engine()) {
    case PairEngine::none:
      return "";
    case PairEngine::avx512_bf16:
      return "AVX512-BF16";
    case PairEngine::amx:
      return "AMX";
  }
  return "";
}

int64_t tile_scratch_bytes(int64_t qk_width, int64_t v_width) {
  int64_t bytes = TileScratch::bytes(qk_width, v_width);
#if LONGSTRIDE_PAIRS
  bytes = std::max(bytes, PairScratch::bytes(qk_width, v_width));
#endif
  return (bytes + 63) / 64 * 64;
}

Worker::Worker(const Tensor& scratch, DType dtype, int64_t qk_width, int64_t v_width)
    : pairs(multiply_in_pairs(dtype)),
      memory(scratch.as<uint8_t>() + omp_get_thread_num() * scratch.stride[0]),
      tile_scratch(memory, qk_width, v_width) {
  if (!pairs) tile_scratch.lay_out(gatherer, qk_width, v_width);
#if LONGSTRIDE_PAIRS
  if (pairs) PairScratch::lay_out(gatherer, memory, qk_width, v_width);
#endif
}

}  // namespace longstride::cpu
