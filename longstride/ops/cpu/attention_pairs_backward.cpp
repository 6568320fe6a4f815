// The backward tiles of attention in products of pairs; attention_pairs.cpp describes the layouts.
#include "longstride/ops/cpu/attention_pairs.h"
#include "longstride/ops/cpu/attention_pairs_tile.h"

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

namespace {

// Values that turn scores and gradients of weights into weights and gradients of scores; lse in units of log
// 2.
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

// lse in units of log 2 and delta of a tile. A query that saw nothing is never allowed, so zero will do.
inline void gather_statistics(const BackwardTask& task, const TilePositions& queries, float* lse,
                              float* delta) {
  gather_values(task.lse, queries, lse);
  gather_values(task.delta, queries, delta);
  for (int64_t i = 0; i < kT; ++i) lse[i] *= kLog2E;
}

}  // namespace

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

  if (!gatherer.has(task.index)) request_task<WalkOverKeys>(gatherer, task);
  gather_statistics(task, queries, lse, delta);
  std::fill_n(ones, kT, 1.0f);
  gatherer.finish();
  turn_queries(gatherer.rows<uint16_t>(stream::kQueries), queries.count, wide, queries_turned);
  turn_queries(gatherer.rows<uint16_t>(stream::kGradients), queries.count, v_wide, d_o_turned);
  bool fresh = true;
  for_visits<WalkOverKeys, uint16_t>(
      gatherer, task, next, [&](const Visit& visit, const Rows& key_rows, const Rows& value_rows) {
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
        fresh = false;
      });
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

  if (!gatherer.has(task.index)) request_task<WalkOverQueries>(gatherer, task);
  gatherer.finish();
  const Rows key_rows = gatherer.rows<uint16_t>(stream::kKeys),
             value_rows = gatherer.rows<uint16_t>(stream::kValues);
  bool fresh = true;
  for_visits<WalkOverQueries, uint16_t>(
      gatherer, task, next, [&](const Visit& visit, const Rows& query_rows, const Rows& d_o_rows) {
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
        fresh = false;
      });
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
