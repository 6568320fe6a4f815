// The layouts of attention_pairs.cpp: bf16 rows turned and paired for products, and results written back.
#pragma once

#include "longstride/ops/cpu/attention_pairs_products.h"

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

// GCC 12 warns of the undefined inputs of its own intrinsics.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

inline constexpr int64_t kT = kAttentionTile;
inline constexpr int64_t kHalf = kT / 2;
inline constexpr int kHalfBlocks = kHalf / kBlock;

using Rows = RowGatherer::Rows<uint16_t>;

inline int64_t pair_width(int64_t width) { return (width + kPairWidth - 1) / kPairWidth * kPairWidth; }
inline int blocks_of(int64_t count) { return static_cast<int>((count + kBlock - 1) / kBlock); }
inline int depths_of(int64_t count) { return static_cast<int>((count + kPairWidth - 1) / kPairWidth); }

// Turns 16 rows of 16 words into 16 columns.
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

// Column `i` of row `j` of a turned tile of `rows` rows.
inline int64_t turned_at(int64_t rows, int64_t j, int64_t i) {
  return (i / kHalf * rows + j) * kHalf + i % kHalf;
}

// Turns rows (count, words) of words into turned (words, kT). Row i is at row_at(i), and the other rows of
// its block are `row` words apart. count is rounded up to a block of rows.
template <class RowAt>
void turn_words(const RowAt& row_at, int64_t row, int64_t count, int64_t words, void* to) {
  for (int64_t i = 0; i < count; i += kBlock) {
    for (int64_t j = 0; j < words; j += 16) {
      __m512i r[16];
      const uint32_t* from = row_at(i) + j;
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) r[k] = _mm512_loadu_si512(from + k * row);
      turn(r);
      uint32_t* target = static_cast<uint32_t*>(to) + turned_at(words, j, i);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) _mm512_storeu_si512(target + k * kHalf, r[k]);
    }
  }
}

// rows (count, width) of bf16 -> turned (width / 2, kT) pairs along the width.
inline void turn_queries(Rows rows, int64_t count, int64_t width, uint32_t* to) {
  turn_words([&](int64_t i) { return reinterpret_cast<const uint32_t*>(rows.at(i)); }, rows.row / 2, count,
             width / 2, to);
}

// Where the words of two rows' pairs come from in the two rows: for the lower and for the upper 16 columns.
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
inline void pair_rows(Rows rows, int64_t count, int64_t width, uint32_t* pairs) {
  const PairOrder order;
  for (int64_t i = 0; i < depths_of(count) * kPairWidth; i += 2) {
    for (int64_t j = 0; j < width; j += 32) {
      const uint16_t* from = rows.at(i) + j;
      const __m512i even = _mm512_loadu_si512(from), odd = _mm512_loadu_si512(from + rows.row);
      uint32_t* to = pairs + i / 2 * width + j;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, order.lower, odd));
      _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, order.upper, odd));
    }
  }
}

// rows (count, width) of bf16 -> columns (width, kT) of bf16; count is rounded up to 32.
inline void turn_rows(Rows rows, int64_t count, int64_t width, uint16_t* columns) {
  const PairOrder order;
  for (int64_t i = 0; i < depths_of(count) * kPairWidth; i += 32) {
    for (int64_t j = 0; j < width; j += 32) {
      __m512i low[16], high[16];
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) {
        const uint16_t* from = rows.at(i) + 2 * k * rows.row + j;
        const __m512i even = _mm512_loadu_si512(from), odd = _mm512_loadu_si512(from + rows.row);
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

inline __m512 widened(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Writes up to 32 values of a row, a whole line of the cache at once.
inline void write_line(__m512 lower, __m512 upper, int64_t columns, Write write, uint16_t* to) {
  const __mmask32 mask = columns >= 32 ? ~__mmask32{0} : (__mmask32{1} << columns) - 1;
  if (write == Write::onto) {
    const __m512i before = _mm512_maskz_loadu_epi16(mask, to);
    lower = _mm512_add_ps(lower, widened(_mm512_castsi512_si256(before)));
    upper = _mm512_add_ps(upper, widened(_mm512_extracti64x4_epi64(before, 1)));
  }
  const __m512i line = (__m512i)_mm512_cvtne2ps_pbh(upper, lower);
  // Bypasses the caches: rows lie apart, and reading a line only to overwrite it takes several times as
  // long.
  if (write == Write::over && columns >= 32 && reinterpret_cast<uintptr_t>(to) % 64 == 0)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), line);
  else
    _mm512_mask_storeu_epi16(to, mask, line);
}

// Writes turned results (width, kT) f32, each column times its factor, to a tile's rows.
inline void write_turned(const float* turned, const float* factors, const TilePositions& tile, Write write,
                         const HeadRows& to) {
  const int64_t rows = pair_width(to.width);
  for (int64_t i = 0; i < tile.count; i += kBlock) {
    const __m512 factor = _mm512_loadu_ps(factors + i);
    for (int64_t j = 0; j < to.width; j += 32) {
      __m512i lower[16], upper[16];
      const float* from = turned + turned_at(rows, j, i);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k)
        lower[k] = _mm512_castps_si512(_mm512_mul_ps(factor, _mm512_loadu_ps(from + k * kHalf)));
      turn(lower);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k)
        upper[k] = _mm512_castps_si512(_mm512_mul_ps(factor, _mm512_loadu_ps(from + (16 + k) * kHalf)));
      turn(upper);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k)
        if (i + k < tile.count && tile.position[i + k] >= 0)
          write_line(_mm512_castsi512_ps(lower[k]), _mm512_castsi512_ps(upper[k]), to.width - j, write,
                     to.bf16(tile.position[i + k]) + j);
    }
  }
}

// Writes rows (kT, row) f32 to a tile's rows.
inline void write_pair_rows(const float* rows, int64_t row, const TilePositions& tile, Write write,
                            const HeadRows& to) {
  for (int64_t i = 0; i < tile.count; ++i) {
    if (tile.position[i] < 0) continue;
    const float* from = rows + i * row;
    for (int64_t j = 0; j < to.width; j += 32)
      write_line(_mm512_loadu_ps(from + j), _mm512_loadu_ps(from + j + 16), to.width - j, write,
                 to.bf16(tile.position[i]) + j);
  }
}

}  // namespace longstride::cpu

HWY_POP_ATTRIBUTES

#endif  // LONGSTRIDE_PAIRS
