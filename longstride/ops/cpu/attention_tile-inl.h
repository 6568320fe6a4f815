// Vector kernels on tiles in scratch: products, transposition, and the exponential. Included once for each
// vector target.
//
// All products of attention have one form, c (+)= a b. b's columns lie along vector lanes, and a is read
// element by element, so a may be in memory either way round. A tile of scores is kAttentionTile floats wide
// whatever its size; lanes beyond it hold numbers that nobody reads.
#if defined(LONGSTRIDE_OPS_CPU_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSTRIDE_OPS_CPU_ATTENTION_TILE_INL_H_
#undef LONGSTRIDE_OPS_CPU_ATTENTION_TILE_INL_H_
#else
#define LONGSTRIDE_OPS_CPU_ATTENTION_TILE_INL_H_
#endif

#include <bit>
#include <utility>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/attention_tile.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;
constexpr int kLanes = HWY_LANES(float);
static_assert(kWidthStep % kLanes == 0, "rows are padded to whole vectors");

// Accumulators fill the registers: 6 * 4 of 32, or 6 * 2 of 16.
constexpr int kBlockRows = 6;
constexpr int kBlockVectors = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 4 : 2;

enum class Sum { fresh, onto };  // c = ab, or c = row_scale c + ab, with row_scale 1 if it is null

struct Product {
  const float* a;  // element (i, k) at a[i * a_row + k * a_depth]
  ptrdiff_t a_row, a_depth;
  const float* b;  // (depth, vectors * kLanes)
  ptrdiff_t b_row;
  float* c;  // (rows, vectors * kLanes)
  ptrdiff_t c_row;
  int64_t rows, depth;
  int vectors;
  Sum sum = Sum::fresh;
  const float* row_scale = nullptr;
  // Bits of one row of a mask. If given, columns without a bit are not computed, or depths without a bit are
  // skipped.
  const uint64_t* columns_of_row = nullptr;
  const uint64_t* depths_of_row = nullptr;
  RowGatherer* gatherer = nullptr;  // goes on while this product is computed
};

template <int kRows, int kVectors>
HWY_NOINLINE void multiply_block(const Product& p, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                                 ptrdiff_t depth, float* HWY_RESTRICT c, const float* row_scale) {
  const Lanes d;
  Vector sums[kRows][kVectors];
  // Loops over registers must be unrolled everywhere, or the compiler keeps the array in memory.
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
  }
  if (p.sum != Sum::fresh) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector factor = hn::Set(d, row_scale ? row_scale[r] : 1.0f);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] = hn::Mul(factor, hn::Load(d, c + r * p.c_row + v * kLanes));
    }
  }
  const ptrdiff_t a_row = p.a_row, a_depth = p.a_depth, b_row = p.b_row;
  for (ptrdiff_t k = 0; k < depth; ++k, a += a_depth, b += b_row) {
    Vector right[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) right[v] = hn::Load(d, b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector left = hn::Set(d, a[r * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(left, right[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) hn::Store(sums[r][v], d, c + r * p.c_row + v * kLanes);
  }
}

using MultiplyBlock = void (*)(const Product&, const float*, const float*, ptrdiff_t, float*, const float*);
template <int... kIndex>
HWY_INLINE MultiplyBlock choose_block(int rows, int vectors, std::integer_sequence<int, kIndex...>) {
  static constexpr MultiplyBlock kTable[] = {
      multiply_block<kIndex / kBlockVectors + 1, kIndex % kBlockVectors + 1>...};
  return kTable[(rows - 1) * kBlockVectors + vectors - 1];
}

// A range of columns (in vectors) or of depths that a group of rows needs.
struct Range {
  int64_t begin, end;
};
HWY_INLINE Range range_of_bits(const uint64_t* rows, int64_t count) {
  uint64_t bits = 0;
  for (int64_t r = 0; r < count; ++r) bits |= rows[r];
  if (bits == 0) return {0, 0};
  return {std::countr_zero(bits), 64 - std::countl_zero(bits)};
}

HWY_INLINE void multiply(const Product& p) {
  for (int64_t row = 0; row < p.rows; row += kBlockRows) {
    const int rows = static_cast<int>(HWY_MIN(kBlockRows, p.rows - row));
    Range depths{0, p.depth}, vectors{0, p.vectors};
    if (p.depths_of_row) depths = range_of_bits(p.depths_of_row + row, rows);
    if (p.columns_of_row) {
      vectors = range_of_bits(p.columns_of_row + row, rows);
      vectors = {vectors.begin / kLanes, (vectors.end + kLanes - 1) / kLanes};
    }
    if (depths.begin == depths.end && p.sum != Sum::fresh) continue;
    const float* a = p.a + row * p.a_row + depths.begin * p.a_depth;
    const float* b = p.b + depths.begin * p.b_row;
    const float* row_scale = p.row_scale ? p.row_scale + row : nullptr;
    // Panels have nearly equal widths: a panel of a single vector would leave the multipliers waiting.
    int left = static_cast<int>(vectors.end - vectors.begin);
    for (int64_t v = vectors.begin; left > 0;) {
      const int panels = (left + kBlockVectors - 1) / kBlockVectors, width = (left + panels - 1) / panels;
      if (p.gatherer) p.gatherer->step();
      choose_block(rows, width, std::make_integer_sequence<int, kBlockRows * kBlockVectors>())(
          p, a, b + v * kLanes, depths.end - depths.begin, p.c + row * p.c_row + v * kLanes, row_scale);
      v += width, left -= width;
    }
  }
}

// Lanes whose bit is set in the low kLanes bits of `bits`.
HWY_INLINE hn::Mask<Lanes> lanes_of_bits(uint64_t bits) {
  const Lanes d;
  const hn::RebindToSigned<Lanes> di;
  const auto lane_bit = hn::Shl(hn::Set(di, 1), hn::Iota(di, 0));
  return hn::RebindMask(d, hn::TestBit(hn::Set(di, static_cast<int32_t>(bits & 0xffff)), lane_bit));
}
constexpr uint64_t kAllLanes = (uint64_t{1} << kLanes) - 1;
HWY_INLINE uint64_t bits_of_vector(uint64_t bits, int64_t vector) {
  return bits >> (vector * kLanes) & kAllLanes;
}

// e^x within two units in the last place for x below 88; 0 below -87, where e^x leaves the normal numbers.
// NaN stays NaN. x = n ln 2 + r; polynomial for e^r on |r| <= ln 2 / 2 as in Cephes (Moshier, 1989).
HWY_INLINE Vector exponential(Vector x) {
  const Lanes d;
  const hn::RebindToSigned<Lanes> di;
  const Vector lowest = hn::Set(d, -87.0f);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Vector round = hn::Set(d, 12582912.0f);
  const Vector shifted = hn::MulAdd(x, hn::Set(d, 1.44269504088896341f), round);
  const Vector n = hn::Sub(shifted, round);
  Vector r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  Vector y = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 8.3334519073e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 4.1665795894e-2f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.6666665459e-1f));
  y = hn::MulAdd(y, r, hn::Set(d, 5.0000001201e-1f));
  y = hn::Add(hn::MulAdd(y, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  y = hn::BitCast(d, hn::Add(hn::BitCast(di, y), power));
  return hn::IfThenElse(hn::Lt(x, lowest), hn::Zero(d), y);
}

// Natural logarithm of positive normal numbers to about the last place; NaN and infinity stay. x = 2^n m with
// m in [2/3, 4/3), and log m = 2 artanh((m - 1) / (m + 1)).
HWY_INLINE Vector logarithm(Vector x) {
  const Lanes d;
  const hn::RebindToSigned<Lanes> di;
  const auto two_thirds = hn::Set(di, 0x3f2aaaab);
  const auto n = hn::ShiftRight<23>(hn::Sub(hn::BitCast(di, x), two_thirds));
  const Vector m = hn::BitCast(d, hn::Sub(hn::BitCast(di, x), hn::ShiftLeft<23>(n)));
  const Vector one = hn::Set(d, 1.0f);
  const Vector t = hn::Div(hn::Sub(m, one), hn::Add(m, one)), t2 = hn::Mul(t, t);
  Vector y = hn::MulAdd(hn::Set(d, 2.0f / 9), t2, hn::Set(d, 2.0f / 7));
  y = hn::MulAdd(y, t2, hn::Set(d, 2.0f / 5));
  y = hn::MulAdd(y, t2, hn::Set(d, 2.0f / 3));
  y = hn::MulAdd(y, t2, hn::Set(d, 2.0f));
  y = hn::MulAdd(hn::ConvertTo(d, n), hn::Set(d, 0.693147181f), hn::Mul(y, t));
  return hn::IfThenElse(hn::Lt(x, hn::Inf(d)), y, x);
}

// rows (count, width) -> columns (width, kAttentionTile); width is padded, count is rounded up to whole
// vectors.
#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void transpose(const float* rows, int64_t count, int64_t width, float* columns) {
  for (int64_t row = 0; row < count; ++row)
    for (int64_t column = 0; column < width; ++column)
      columns[column * kAttentionTile + row] = rows[row * width + column];
}

#else

// Four-float blocks at from, from + 4 step, from + 8 step, ... side by side in one vector.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float* from, ptrdiff_t step) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, from + hn::MaxLanes(D()) / 2 * step, step),
                       load_blocks(half, from, step));
  }
}

HWY_INLINE void transpose(const float* rows, int64_t count, int64_t width, float* columns) {
  const Lanes d;
  const hn::RepartitionToWide<Lanes> pairs;
  for (int64_t row = 0; row < count; row += kLanes) {
    for (int64_t column = 0; column < width; column += 4) {
      const float* from = rows + row * width + column;
      const Vector r0 = load_blocks(d, from, width), r1 = load_blocks(d, from + width, width);
      const Vector r2 = load_blocks(d, from + 2 * width, width), r3 = load_blocks(d, from + 3 * width, width);
      const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
      float* to = columns + column * kAttentionTile + row;
      hn::Store(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + kAttentionTile);
      hn::Store(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * kAttentionTile);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * kAttentionTile);
    }
  }
}

#endif

// Writes rows in f32, `row` apart, to a tile's positions.
inline void write_rows(const float* from, int64_t row, const TilePositions& tile, Write write,
                       const HeadRows& to) {
  const Lanes d;
  for (int64_t i = 0; i < tile.count; ++i, from += row) {
    if (tile.position[i] < 0) continue;
    if (to.dtype == DType::bf16) {
      Bf16* target = reinterpret_cast<Bf16*>(to.row(tile.position[i]));
      for (int64_t j = 0; j < to.width; ++j)
        target[j] = Bf16(write == Write::over ? from[j] : static_cast<float>(target[j]) + from[j]);
      continue;
    }
    float* target = to.f32(tile.position[i]);
    int64_t j = 0;
    if (write == Write::onto) {
      for (; j + kLanes <= to.width; j += kLanes)
        hn::StoreU(hn::Add(hn::LoadU(d, target + j), hn::Load(d, from + j)), d, target + j);
      for (; j < to.width; ++j) target[j] += from[j];
    } else if (to.width % kLanes == 0 && reinterpret_cast<uintptr_t>(target) % (4 * kLanes) == 0) {
      // Bypasses the caches: rows lie apart, and reading a line only to overwrite it takes several times as
      // long.
      for (; j < to.width; j += kLanes) hn::Stream(hn::Load(d, from + j), d, target + j);
    } else {
      std::memcpy(target, from, to.width * sizeof(float));
    }
  }
  hwy::FlushStream();
}

}  // namespace HWY_NAMESPACE
}  // namespace longstride::cpu
HWY_AFTER_NAMESPACE();

#endif
