// The forward tile of attention in products of pairs; attention_pairs.cpp describes the layouts.
#include <cmath>

#include "longstride/ops/cpu/attention_pairs.h"
#include "longstride/ops/cpu/attention_pairs_tile.h"

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

namespace {

// What a tile of queries has seen so far, for each query; scores are in units of log 2.
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
    // A query that has seen no key yet keeps -inf. Subtracting zero instead of it avoids NaN.
    const __mmask16 unseen = _mm512_cmp_ps_mask(highest, lowest, _CMP_EQ_OQ);
    const __m512 origin = _mm512_mask_blend_ps(unseen, highest, _mm512_setzero_ps());
    const __m512 rescale = power_of_two(_mm512_sub_ps(before, origin));
    __m512 sum = _mm512_mul_ps(rescale, _mm512_loadu_ps(running.sum + j * kBlock));
    __m512 other_sum = _mm512_setzero_ps();
    // Goes up to a whole step of depth. Rows of scores beyond the last key may hold anything; nothing allows
    // them.
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

// Begins from nothing (o is then undefined), or from what earlier passes have written.
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
    // A NaN counts as seen.
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

  if (!gatherer.has(task.index)) request_task<WalkOverKeys>(gatherer, task);
  begin_queries(task, queries, running, scratch.take<float>(v_wide * kT));
  gatherer.finish();
  turn_queries(gatherer.rows<uint16_t>(stream::kQueries), queries.count, wide, queries_turned);
  bool fresh = task.pass == 0;
  for_visits<WalkOverKeys, uint16_t>(
      gatherer, task, next, [&](const Visit& visit, const Rows& key_rows, const Rows& value_rows) {
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
          softmax(scores, keys, first, end, allowed, task.scale * kLog2E, fresh ? 0 : v_wide, running,
                  weights, gatherer);
          add_turned(values_turned, v_wide, weights, keys, end - first, used, !fresh,
                     running.o + half * v_wide * kHalf);
        }
        fresh = false;
      });
  if (fresh) std::fill_n(running.o, v_wide * kT, 0.0f);  // nothing was visited
  end_queries(task, queries, running);
}

}  // namespace longstride::cpu

HWY_POP_ATTRIBUTES

#endif  // LONGSTRIDE_PAIRS
