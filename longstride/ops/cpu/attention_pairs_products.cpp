#include "longstride/ops/cpu/attention_pairs_products.h"

#include <atomic>

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

#include "longstride/device/instructions.h"

namespace longstride::cpu {

namespace {

// Depth blocks [begin, end).
struct Depths {
  int begin, end;
};

}  // namespace

PairEngine pair_engine() {
  if (may_use(Instructions::amx)) return PairEngine::amx;
  return may_use(Instructions::avx512_bf16) ? PairEngine::avx512_bf16 : PairEngine::none;
}

}  // namespace longstride::cpu

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

namespace {

const uint16_t* rows_of(const PairProduct& p, int64_t row) {
  return p.a_upper && row >= 32 ? p.a_upper + (row - 32) * p.a_row : p.a + row * p.a_row;
}

// Tile registers: 0..3 results, 4 and 5 rows of a, 6 and 7 columns of b.
template <int kRows, int kColumns>
void multiply_amx(const PairProduct& p, int row, int column, Depths depths) {
  float* c = p.c + row * kBlock * p.c_row + column * kBlock;
  const int64_t c_bytes = p.c_row * 4, a_bytes = p.a_row * 2, b_bytes = p.b_row * 4;
  const int64_t below = kBlock * p.c_row;
  if (p.onto) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (kColumns > 1) _tile_loadd(1, c + kBlock, c_bytes);
    if constexpr (kRows > 1) _tile_loadd(2, c + below, c_bytes);
    if constexpr (kRows > 1 && kColumns > 1) _tile_loadd(3, c + below + kBlock, c_bytes);
  } else {
    _tile_zero(0);
    if constexpr (kColumns > 1) _tile_zero(1);
    if constexpr (kRows > 1) _tile_zero(2);
    if constexpr (kRows > 1 && kColumns > 1) _tile_zero(3);
  }
  const uint16_t* a = rows_of(p, row * kBlock) + depths.begin * kPairWidth;
  const uint32_t* b = p.b + depths.begin * kBlock * p.b_row + column * kBlock;
  for (int depth = depths.begin; depth < depths.end; ++depth, a += kPairWidth, b += kBlock * p.b_row) {
    _tile_loadd(4, a, a_bytes);
    _tile_loadd(6, b, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kColumns > 1) {
      _tile_loadd(7, b + kBlock, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRows > 1) {
      _tile_loadd(5, a + kBlock * p.a_row, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kRows > 1 && kColumns > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (kColumns > 1) _tile_stored(1, c + kBlock, c_bytes);
  if constexpr (kRows > 1) _tile_stored(2, c + below, c_bytes);
  if constexpr (kRows > 1 && kColumns > 1) _tile_stored(3, c + below + kBlock, c_bytes);
}

// kSubrows * kColumns sums fill the registers, except for those of b.
template <int kColumns>
void multiply_dot(const PairProduct& p, int first_row, Depths depths, int column, int rows) {
  constexpr int kSubrows = 8;
  for (int sub = 0; sub < rows * kBlock; sub += kSubrows) {
    float* c = p.c + (first_row * kBlock + sub) * p.c_row + column * kBlock;
    const uint16_t* a = rows_of(p, first_row * kBlock + sub) + depths.begin * kPairWidth;
    const uint32_t* b = p.b + depths.begin * kBlock * p.b_row + column * kBlock;
    __m512 sums[kSubrows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kSubrows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kColumns; ++v)
        sums[r][v] = p.onto ? _mm512_loadu_ps(c + r * p.c_row + v * kBlock) : _mm512_setzero_ps();
    for (int64_t k = 0; k < (depths.end - depths.begin) * kBlock; ++k, a += 2, b += p.b_row) {
      __m512bh right[kColumns];
#pragma GCC unroll 2
      for (int v = 0; v < kColumns; ++v) right[v] = (__m512bh)_mm512_loadu_si512(b + v * kBlock);
#pragma GCC unroll 8
      for (int r = 0; r < kSubrows; ++r) {
        int pair;
        __builtin_memcpy(&pair, a + r * p.a_row, 4);
        const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
        for (int v = 0; v < kColumns; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], left, right[v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kSubrows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kColumns; ++v) _mm512_storeu_ps(c + r * p.c_row + v * kBlock, sums[r][v]);
  }
}

// The depth blocks that 2 * 2 blocks of results at (row, column) need.
Depths depths_of(const PairProduct& p, int row, int column) {
  if (p.skip != Skip::depth_of_rows && p.skip != Skip::depth_of_columns) return {0, p.depth};
  uint32_t bits = 0;
  if (p.skip == Skip::depth_of_rows) {
    for (int r = row; r < std::min(row + 2, p.rows); ++r) bits |= p.used->of_keys[r];
    bits |= bits >> 1;
    bits = (bits & 1) | (bits & 4) >> 1;
  } else {
    for (int depth = 0; depth < p.depth; ++depth)
      if ((p.used->of_keys[2 * depth] | p.used->of_keys[2 * depth + 1]) >> column & 3) bits |= 1u << depth;
  }
  if (bits == 0) return {0, 0};
  return {std::countr_zero(bits), 32 - std::countl_zero(bits)};
}

template <bool kAmx>
void multiply(const PairProduct& p) {
  for (int row = 0; row < p.rows; row += 2) {
    for (int column = 0; column < p.columns; column += 2) {
      int r = row, c = column, rows = std::min(2, p.rows - row), columns = std::min(2, p.columns - column);
      if (p.skip == Skip::results) {
        const uint32_t upper = p.used->of_keys[row] >> column & 3;
        const uint32_t lower = rows > 1 ? p.used->of_keys[row + 1] >> column & 3 : 0;
        if ((upper | lower) == 0) continue;
        if (upper == 0) ++r;
        if (upper == 0 || lower == 0) rows = 1;
        if (((upper | lower) & 1) == 0) ++c;
        if ((upper | lower) != 3) columns = 1;
      }
      const Depths depths = depths_of(p, row, column);
      if (depths.begin == depths.end && p.onto) continue;
      if constexpr (kAmx) {
        if (rows == 2)
          columns == 2 ? multiply_amx<2, 2>(p, r, c, depths) : multiply_amx<2, 1>(p, r, c, depths);
        else
          columns == 2 ? multiply_amx<1, 2>(p, r, c, depths) : multiply_amx<1, 1>(p, r, c, depths);
      } else {
        columns == 2 ? multiply_dot<2>(p, r, depths, c, rows) : multiply_dot<1>(p, r, depths, c, rows);
      }
    }
  }
}

void shape_registers() {
  struct alignas(64) Shapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static const Shapes shapes;
  _tile_loadconfig(&shapes);
}

void release_registers() { _tile_release(); }

}  // namespace

PairRegisters::PairRegisters() {
  if (pair_engine() == PairEngine::amx) shape_registers();
}

PairRegisters::~PairRegisters() {
  if (pair_engine() == PairEngine::amx) release_registers();
}

void multiply_pairs(const PairProduct& product) {
  pair_engine() == PairEngine::amx ? multiply<true>(product) : multiply<false>(product);
}

}  // namespace longstride::cpu

HWY_POP_ATTRIBUTES

#else

namespace longstride::cpu {

PairEngine pair_engine() { return PairEngine::none; }
PairRegisters::PairRegisters() = default;
PairRegisters::~PairRegisters() = default;
void multiply_pairs(const PairProduct&) {}

}  // namespace longstride::cpu

#endif
