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
// mask leaves empty.
#include "longstride/ops/cpu/attention_pairs.h"

#include <cmath>
#include <limits>

#include <omp.h>

#include "longstride/ops/cpu/attention_pairs_products.h"

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

// GCC 12 takes the undefined inputs of its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

namespace {

constexpr int64_t kT = kAttentionTile;

inline int64_t pair_width(int64_t width) { return (width + kPairWidth - 1) / kPairWidth * kPairWidth; }
inline int blocks_of(int64_t count) { return static_cast<int>((count + kBlock - 1) / kBlock); }
inline int depths_of(int64_t count) { return static_cast<int>((count + kPairWidth - 1) / kPairWidth); }

// A thread's memory. All tiles are kT * padded width of bf16, or the same in f32.
struct PairScratch {
  char* next;
  int64_t wide;  // the larger padded width

  PairScratch(void* memory, int64_t qk_width, int64_t v_width)
      : next(static_cast<char*>(memory)), wide(std::max(pair_width(qk_width), pair_width(v_width))) {
    next += 8 * kT * wide * 2;  // the gatherer's
  }
  static int64_t bytes(int64_t qk_width, int64_t v_width) {
    const int64_t wide = std::max(pair_width(qk_width), pair_width(v_width));
    return kT * wide * (8 * 2 + 5 * 2 + 2 * 4) + kT * kT * (2 * 4 + 2 * 2) + 5 * kT * 4;
  }
  static void lay_out(RowGatherer& gatherer, void* memory, int64_t qk_width, int64_t v_width) {
    const int64_t wide = std::max(pair_width(qk_width), pair_width(v_width));
    for (const int s : {stream::kQueries, stream::kKeys, stream::kValues, stream::kGradients}) {
      char* first = static_cast<char*>(memory) + 2 * s * kT * wide * 2;
      const int64_t width = s == stream::kQueries || s == stream::kKeys ? qk_width : v_width;
      gatherer.set_stream(s, first, first + kT * wide * 2, DType::bf16, pair_width(width) * 2);
    }
  }
  template <class T>
  T* take(int64_t count) {
    T* here = reinterpret_cast<T*>(next);
    next += count * sizeof(T);
    return here;
  }
};

// 16 rows of 16 words become 16 columns.
inline void turn(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// rows (count, words) of words, `row` apart -> (words, kT); count is rounded up to a block of rows.
inline void turn_words(const void* rows, int64_t row, int64_t count, int64_t words, void* to) {
  for (int64_t i = 0; i < count; i += kBlock) {
    for (int64_t j = 0; j < words; j += 16) {
      __m512i r[16];
      const uint32_t* from = static_cast<const uint32_t*>(rows) + i * row + j;
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) r[k] = _mm512_loadu_si512(from + k * row);
      turn(r);
      uint32_t* target = static_cast<uint32_t*>(to) + j * kT + i;
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) _mm512_storeu_si512(target + k * kT, r[k]);
    }
  }
}

// Where the words of two rows' pairs lie in the two rows: the lower and the upper 16 columns.
struct PairOrder {
  __m512i lower, upper;
  __m512i halves;  // the same for 16 columns of two rows in one vector
  PairOrder() {
    alignas(64) uint16_t low[32], high[32], half[32];
    for (uint16_t i = 0; i < 16; ++i) {
      low[2 * i] = i, low[2 * i + 1] = 32 + i;
      high[2 * i] = 16 + i, high[2 * i + 1] = 48 + i;
      half[2 * i] = i, half[2 * i + 1] = 16 + i;
    }
    lower = _mm512_load_si512(low), upper = _mm512_load_si512(high), halves = _mm512_load_si512(half);
  }
};

// rows (count, width) of bf16 -> pairs of rows (count / 2, width); count is rounded up to 32.
inline void pair_rows(const uint16_t* rows, int64_t count, int64_t width, uint32_t* pairs) {
  const PairOrder order;
  for (int64_t i = 0; i < depths_of(count) * kPairWidth; i += 2) {
    for (int64_t j = 0; j < width; j += 32) {
      const __m512i even = _mm512_loadu_si512(rows + i * width + j);
      const __m512i odd = _mm512_loadu_si512(rows + (i + 1) * width + j);
      uint32_t* to = pairs + i / 2 * width + j;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, order.lower, odd));
      _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, order.upper, odd));
    }
  }
}

// rows (count, width) of bf16 -> columns (width, kT) of bf16; count is rounded up to 32.
inline void turn_rows(const uint16_t* rows, int64_t count, int64_t width, uint16_t* columns) {
  const PairOrder order;
  for (int64_t i = 0; i < depths_of(count) * kPairWidth; i += 32) {
    for (int64_t j = 0; j < width; j += 32) {
      __m512i low[16], high[16];
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) {
        const uint16_t* from = rows + (i + 2 * k) * width + j;
        const __m512i even = _mm512_loadu_si512(from), odd = _mm512_loadu_si512(from + width);
        low[k] = _mm512_permutex2var_epi16(even, order.lower, odd);
        high[k] = _mm512_permutex2var_epi16(even, order.upper, odd);
      }
      turn(low);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) _mm512_storeu_si512(columns + (j + k) * kT + i, low[k]);
      turn(high);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) _mm512_storeu_si512(columns + (j + 16 + k) * kT + i, high[k]);
    }
  }
}

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
  Allowed(const TileMask* mask, int64_t queries, int64_t keys) : columns_(whole_) {
    if (mask) {
      columns_ = mask->columns.data();
    } else {
      std::fill_n(whole_, kT, 0);
      std::fill_n(whole_, keys, queries == 64 ? ~uint64_t{0} : (uint64_t{1} << queries) - 1);
    }
    for (int64_t key = 0; key < keys; ++key)
      for (int j = 0; j < kT / kBlock; ++j)
        used.of_keys[key / kBlock] |= static_cast<uint32_t>(of(key, j) != 0) << j;
  }
  Allowed(const Allowed&) = delete;
  __mmask16 of(int64_t key, int block) const {
    return static_cast<__mmask16>(columns_[key] >> (block * kBlock));
  }
  bool block(int64_t key, int block) const { return used.of_keys[key / kBlock] >> block & 1; }
  UsedBlocks used;

 private:
  const uint64_t* columns_;
  uint64_t whole_[kT];
};

// What a tile of queries has seen so far, by query, scores being in units of log 2.
struct Running {
  float* highest;
  float* sum;
  float* o;  // (Dv, kT), not divided by sum
};

// scores (keys, kT) -> weights as pairs of keys (keys / 2, kT), and o (o_rows, kT) rescaled.
inline void pair_softmax(const float* scores, int64_t keys, int query_blocks, const Allowed& allowed,
                         float scale, int64_t o_rows, const Running& running, uint32_t* weights,
                         RowGatherer& gatherer) {
  const PairOrder order;
  const __m512 scales = _mm512_set1_ps(scale), lowest = _mm512_set1_ps(-kInfinity);
  for (int j = 0; j < query_blocks; ++j) {
    gatherer.step(16);
    const float* lane = scores + j * kBlock;
    __m512 highest = lowest, other = lowest;  // two chains hide the latency of max
    for (int64_t key = 0; key < keys; key += 2) {
      if (!allowed.block(key, j)) continue;
      const float* two = lane + key * kT;
      highest = _mm512_mask_max_ps(highest, allowed.of(key, j), highest, _mm512_loadu_ps(two));
      other = _mm512_mask_max_ps(other, allowed.of(key + 1, j), other, _mm512_loadu_ps(two + kT));
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
      uint32_t* to = weights + key / 2 * kT + j * kBlock;
      if (!allowed.block(key, j)) {
        _mm512_storeu_si512(to, _mm512_setzero_si512());
        continue;
      }
      const float* two = lane + key * kT;
      const __m512 even = _mm512_maskz_mov_ps(
          allowed.of(key, j), power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(two), scales, origin)));
      const __m512 odd = _mm512_maskz_mov_ps(
          allowed.of(key + 1, j), power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(two + kT), scales, origin)));
      sum = _mm512_add_ps(sum, even);
      other_sum = _mm512_add_ps(other_sum, odd);
      const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order.halves, rounded));
    }
    _mm512_storeu_ps(running.highest + j * kBlock, highest);
    _mm512_storeu_ps(running.sum + j * kBlock, _mm512_add_ps(sum, other_sum));
    if (_mm512_cmp_ps_mask(rescale, _mm512_set1_ps(1.0f), _CMP_NEQ_UQ) == 0) continue;
    for (int64_t row = 0; row < o_rows; ++row) {
      float* o = running.o + row * kT + j * kBlock;
      _mm512_storeu_ps(o, _mm512_mul_ps(rescale, _mm512_loadu_ps(o)));
    }
  }
}

inline void write_bf16(__m512 values, __mmask16 columns, Write write, uint16_t* to) {
  if (write == Write::onto) {
    const __m256i before = _mm256_maskz_loadu_epi16(columns, to);
    values = _mm512_add_ps(values, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(before), 16)));
  }
  _mm256_mask_storeu_epi16(to, columns, (__m256i)_mm512_cvtneps_pbh(values));
}

// Turned results (width, kT) f32, each column times its factor, to a tile's rows.
inline void write_turned(const float* turned, const float* factors, const TilePositions& tile, Write write,
                         const HeadRows& to) {
  const int64_t width = to.width;
  for (int64_t i = 0; i < tile.count; i += kBlock) {
    const __m512 factor = _mm512_loadu_ps(factors + i);
    for (int64_t j = 0; j < width; j += 16) {
      __m512i r[16];
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k)
        r[k] = _mm512_castps_si512(_mm512_mul_ps(factor, _mm512_loadu_ps(turned + (j + k) * kT + i)));
      turn(r);
      const __mmask16 columns = width - j >= 16 ? 0xffff : static_cast<__mmask16>((1u << (width - j)) - 1);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) {
        if (i + k >= tile.count || tile.position[i + k] < 0) continue;
        write_bf16(_mm512_castsi512_ps(r[k]), columns, write, to.bf16(tile.position[i + k]) + j);
      }
    }
  }
}

// Rows (kT, row) f32 to a tile's rows.
inline void write_pair_rows(const float* rows, int64_t row, const TilePositions& tile, Write write,
                            const HeadRows& to) {
  for (int64_t i = 0; i < tile.count; ++i) {
    if (tile.position[i] < 0) continue;
    for (int64_t j = 0; j < to.width; j += 16) {
      const __mmask16 columns =
          to.width - j >= 16 ? 0xffff : static_cast<__mmask16>((1u << (to.width - j)) - 1);
      write_bf16(_mm512_loadu_ps(rows + i * row + j), columns, write, to.bf16(tile.position[i]) + j);
    }
  }
}

// From nothing, or from what earlier passes have written. o is turned.
inline void begin_queries(const ForwardTask& task, const TilePositions& queries, const Running& running,
                          float* rows) {
  const int64_t wide = pair_width(task.v.width);
  std::fill_n(running.highest, kT, -kInfinity);
  std::fill_n(running.sum, kT, 0.0f);
  if (task.pass == 0) {
    std::fill_n(running.o, wide * kT, 0.0f);
    return;
  }
  std::fill_n(rows, kT * wide, 0.0f);
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t position = queries.position[i];
    if (position < 0 || std::isinf(task.lse[position])) continue;
    running.highest[i] = task.lse[position] * kLog2E;
    running.sum[i] = 1;
    copy_as_f32(task.o.row(position), DType::bf16, task.o.width, rows + i * wide);
  }
  turn_words(rows, wide, kT, wide, running.o);
}

inline void end_queries(const ForwardTask& task, const TilePositions& queries, const Running& running) {
  float inverse[kT];
  for (int64_t i = 0; i < kT; ++i) inverse[i] = running.sum[i] == 0 ? 0 : 1 / running.sum[i];
  for (int64_t i = 0; i < queries.count; ++i) {
    if (queries.position[i] < 0) continue;
    task.lse[queries.position[i]] =
        running.sum[i] == 0 ? -kInfinity : running.highest[i] / kLog2E + std::log(running.sum[i]);
  }
  write_turned(running.o, inverse, queries, Write::over, task.o);
}

// s^T and dp^T (keys, kT) -> ds^T and, where asked for, p^T: as pairs of keys (keys / 2, kT) words, or as
// rows (keys, kT) of bf16. lse in units of log 2.
template <bool kPairsOfKeys>
void pair_gradients(const float* scores, const float* d_weights, int64_t keys, const Allowed& allowed,
                    const float* lse, const float* delta, float scale, uint16_t* weights, uint16_t* d_scores,
                    RowGatherer& gatherer) {
  const PairOrder order;
  const __m512 to_log2 = _mm512_set1_ps(scale * kLog2E), scales = _mm512_set1_ps(scale);
  // Two keys of one block of queries, or one key of two.
  const auto compute = [&](int64_t key, int j, __m512& weight, __m512& d_score) {
    const float *s = scores + key * kT + j * kBlock, *dp = d_weights + key * kT + j * kBlock;
    const __mmask16 mask = allowed.of(key, j);
    weight = _mm512_maskz_mov_ps(
        mask, power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(s), to_log2, _mm512_loadu_ps(lse + j * kBlock))));
    const __m512 change = _mm512_sub_ps(_mm512_loadu_ps(dp), _mm512_loadu_ps(delta + j * kBlock));
    d_score = _mm512_maskz_mul_ps(mask, _mm512_mul_ps(weight, scales), change);
  };
  const int64_t rows = kPairsOfKeys ? depths_of(keys) * kPairWidth : blocks_of(keys) * kBlock;
  for (int64_t key = 0; key < rows; key += 2) {
    if (key % 8 == 0) gatherer.step(8);
    for (int step = 0; step < 4; ++step) {
      // Pairs of keys: two keys, block `step` of queries. Rows: one key, two blocks of queries.
      const int64_t first = kPairsOfKeys ? key : key + step / 2;
      const int j = kPairsOfKeys ? step : step % 2 * 2;
      uint16_t* to = d_scores + (kPairsOfKeys ? key * kT + j * 32 : first * kT + j * kBlock);
      uint16_t* weights_to = kPairsOfKeys ? nullptr : weights + first * kT + j * kBlock;
      const bool used =
          kPairsOfKeys ? allowed.block(key, j) : allowed.block(key, j) || allowed.block(key, j + 1);
      if (!used) {
        _mm512_storeu_si512(to, _mm512_setzero_si512());
        if (!kPairsOfKeys) _mm512_storeu_si512(weights_to, _mm512_setzero_si512());
        continue;
      }
      __m512 p0, p1, ds0, ds1;
      compute(first, j, p0, ds0);
      compute(kPairsOfKeys ? first + 1 : first, kPairsOfKeys ? j : j + 1, p1, ds1);
      const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(ds1, ds0);
      if constexpr (kPairsOfKeys) {
        _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order.halves, rounded));
      } else {
        _mm512_storeu_si512(to, rounded);
        _mm512_storeu_si512(weights_to, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
      }
    }
  }
}

// scores^T (keys, queries) = rows (keys, width) turned (width / 2, kT), where they are needed.
inline void multiply_scores(const uint16_t* rows, int64_t width, const uint32_t* turned, int key_blocks,
                            int query_blocks, const Allowed& allowed, float* scores) {
  multiply_pairs({.a = rows,
                  .a_row = width,
                  .b = turned,
                  .b_row = kT,
                  .c = scores,
                  .c_row = kT,
                  .rows = key_blocks,
                  .columns = query_blocks,
                  .depth = depths_of(width),
                  .onto = false,
                  .skip = Skip::results,
                  .used = &allowed.used});
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
  turn_words(gatherer.rows<uint16_t>(stream::kQueries), wide / 2, queries.count, wide / 2, queries_turned);
  Visits visits = task.keys();
  Visit visit, upcoming;
  for (bool more = visits.next(visit); more; visit = upcoming) {
    gatherer.finish();
    const uint16_t *key_rows = gatherer.rows<uint16_t>(stream::kKeys),
                   *value_rows = gatherer.rows<uint16_t>(stream::kValues);
    more = visits.next(upcoming);
    if (more)
      request_keys(gatherer, task, upcoming.tile);
    else if (next)
      request_task(gatherer, *next);
    const int64_t keys = visit.tile.count;
    const Allowed allowed(visit.mask, queries.count, keys);
    multiply_scores(key_rows, wide, queries_turned, blocks_of(keys), query_blocks, allowed, scores);
    gatherer.step(32);
    turn_rows(value_rows, keys, v_wide, values_turned);
    pair_softmax(scores, keys, query_blocks, allowed, task.scale * kLog2E, v_wide, running, weights,
                 gatherer);
    multiply_pairs({.a = values_turned,
                    .a_row = kT,
                    .b = weights,
                    .b_row = kT,
                    .c = running.o,
                    .c_row = kT,
                    .rows = blocks_of(v_wide),
                    .columns = query_blocks,
                    .depth = depths_of(keys),
                    .onto = true,
                    .skip = Skip::depth_of_columns,
                    .used = &allowed.used});
  }
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
  uint16_t* d_scores = scratch.take<uint16_t>(kT * kT);
  float *lse = scratch.take<float>(kT), *delta = scratch.take<float>(kT), *ones = scratch.take<float>(kT);
  float* dq = scratch.take<float>(wide * kT);

  if (!gatherer.has(task.index)) request_query_task(gatherer, task);
  gather_statistics(task, queries, lse, delta);
  std::fill_n(ones, kT, 1.0f);
  std::fill_n(dq, wide * kT, 0.0f);
  gatherer.finish();
  turn_words(gatherer.rows<uint16_t>(stream::kQueries), wide / 2, queries.count, wide / 2, queries_turned);
  turn_words(gatherer.rows<uint16_t>(stream::kGradients), v_wide / 2, queries.count, v_wide / 2, d_o_turned);
  Visits visits = task.visits_of_queries();
  Visit visit, upcoming;
  for (bool more = visits.next(visit); more; visit = upcoming) {
    gatherer.finish();
    const uint16_t *key_rows = gatherer.rows<uint16_t>(stream::kKeys),
                   *value_rows = gatherer.rows<uint16_t>(stream::kValues);
    more = visits.next(upcoming);
    if (more)
      request_keys(gatherer, task, upcoming.tile);
    else if (next)
      request_query_task(gatherer, *next);
    const int64_t keys = visit.tile.count;
    const Allowed allowed(visit.mask, queries.count, keys);
    multiply_scores(key_rows, wide, queries_turned, blocks_of(keys), query_blocks, allowed, scores);
    gatherer.step(16);
    multiply_scores(value_rows, v_wide, d_o_turned, blocks_of(keys), query_blocks, allowed, d_weights);
    gatherer.step(16);
    turn_rows(key_rows, keys, wide, keys_turned);
    pair_gradients<true>(scores, d_weights, keys, allowed, lse, delta, task.scale, nullptr, d_scores,
                         gatherer);
    multiply_pairs({.a = keys_turned,
                    .a_row = kT,
                    .b = reinterpret_cast<const uint32_t*>(d_scores),
                    .b_row = kT,
                    .c = dq,
                    .c_row = kT,
                    .rows = blocks_of(wide),
                    .columns = query_blocks,
                    .depth = depths_of(keys),
                    .onto = true,
                    .skip = Skip::depth_of_columns,
                    .used = &allowed.used});
  }
  write_turned(dq, ones, queries, task.pass == 0 ? Write::over : Write::onto, task.dq);
}

void pair_backward_key_tile(const BackwardTask& task, const BackwardTask* next, void* memory,
                            RowGatherer& gatherer) {
  const PairRegisters registers;
  const TilePositions keys = task.keys();
  const int64_t wide = pair_width(task.q.width), v_wide = pair_width(task.v.width);
  const int key_blocks = blocks_of(keys.count);
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

  if (!gatherer.has(task.index)) request_key_task(gatherer, task, false);
  std::fill_n(dk, kT * wide, 0.0f);
  std::fill_n(dv, kT * v_wide, 0.0f);
  gatherer.finish();
  const uint16_t *key_rows = gatherer.rows<uint16_t>(stream::kKeys),
                 *value_rows = gatherer.rows<uint16_t>(stream::kValues);
  Visits visits = task.visits_of_keys();
  Visit visit, upcoming;
  for (bool more = visits.next(visit); more; visit = upcoming) {
    gatherer.finish();
    const uint16_t *query_rows = gatherer.rows<uint16_t>(stream::kQueries),
                   *d_o_rows = gatherer.rows<uint16_t>(stream::kGradients);
    more = visits.next(upcoming);
    if (more)
      request_queries(gatherer, task, upcoming.tile, false);
    else if (next)
      request_key_task(gatherer, *next, false);
    const int64_t queries = visit.tile.count;
    const Allowed allowed(visit.mask, queries, keys.count);
    gather_statistics(task, visit.tile, lse, delta);
    turn_words(query_rows, wide / 2, queries, wide / 2, queries_turned);
    multiply_scores(key_rows, wide, queries_turned, key_blocks, blocks_of(queries), allowed, scores);
    gatherer.step(16);
    turn_words(d_o_rows, v_wide / 2, queries, v_wide / 2, d_o_turned);
    multiply_scores(value_rows, v_wide, d_o_turned, key_blocks, blocks_of(queries), allowed, d_weights);
    gatherer.step(16);
    pair_rows(query_rows, queries, wide, query_pairs);
    pair_rows(d_o_rows, queries, v_wide, d_o_pairs);
    pair_gradients<false>(scores, d_weights, keys.count, allowed, lse, delta, task.scale, weights, d_scores,
                          gatherer);
    const auto add = [&](const uint16_t* a, const uint32_t* b, int64_t width, float* c) {
      multiply_pairs({.a = a,
                      .a_row = kT,
                      .b = b,
                      .b_row = width,
                      .c = c,
                      .c_row = width,
                      .rows = key_blocks,
                      .columns = blocks_of(width),
                      .depth = depths_of(queries),
                      .onto = true,
                      .skip = Skip::depth_of_rows,
                      .used = &allowed.used});
    };
    add(weights, d_o_pairs, v_wide, dv);
    add(d_scores, query_pairs, wide, dk);
  }
  const Write write = task.pass == 0 ? Write::over : Write::onto;
  write_pair_rows(dk, wide, keys, write, task.dk);
  write_pair_rows(dv, v_wide, keys, write, task.dv);
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
