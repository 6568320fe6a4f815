// Exact products of matrices of small integers (contract: ops/whole_products.h). Pairs of products are added by one
// instruction into 32 bits, which have room for kSteps of them; then these are added in 64. No scratch.
#include "longstride/ops/whole_products.h"

#include <algorithm>
#include <array>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/whole_products.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace longstride::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

// A plain loop, which the compiler makes vectors of.
void multiply(const int8_t* w, int64_t rows, int64_t columns, const int16_t* x, int64_t count,
              int64_t* sums) {
  constexpr int64_t kPiece = 512;  // 512 * 127 * 32767 < 2^31
  std::array<int16_t, kPiece> wide;
  for (int64_t n = 0; n < rows; ++n) {
    std::fill_n(sums + n * count, count, int64_t{0});
    for (int64_t begin = 0; begin < columns; begin += kPiece) {
      const int64_t size = std::min(kPiece, columns - begin);
      std::copy_n(w + n * columns + begin, size, wide.begin());
      for (int64_t m = 0; m < count; ++m) {
        const int16_t* const row = x + m * columns + begin;
        int32_t part = 0;
        for (int64_t k = 0; k < size; ++k) part += int32_t{wide[k]} * int32_t{row[k]};
        sums[n * count + m] += part;
      }
    }
  }
}

void scores(const int16_t* query, const int16_t* keys, const int32_t* rows, int64_t count, int64_t width,
            int64_t* sums) {
  constexpr int64_t kPiece = 128;  // 128 * 4095^2 < 2^31
  for (int64_t j = 0; j < count; ++j) {
    const int16_t* const key = keys + rows[j] * width;
    sums[j] = 0;
    for (int64_t begin = 0; begin < width; begin += kPiece) {
      int32_t part = 0;
      for (int64_t k = begin; k < std::min(width, begin + kPiece); ++k)
        part += int32_t{query[k]} * int32_t{key[k]};
      sums[j] += part;
    }
  }
}

void mixture(const int32_t* factors, const int16_t* values, const int32_t* rows, int64_t count, int64_t width,
             int64_t* sums) {
  std::fill_n(sums, width, int64_t{0});
  for (int64_t j = 0; j < count; ++j) {
    const int16_t* const value = values + rows[j] * width;
    for (int64_t k = 0; k < width; ++k) sums[k] += int64_t{factors[j]} * value[k];
  }
}

#else

// Rows of x and of w whose products are summed side by side in registers.
constexpr int kRowsOfX = 4;
constexpr int kRowsOfW = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 4 : 2;
constexpr int64_t kSteps = 256;  // 256 * 2 * 127 * 32767 < 2^31

template <class D32>
HWY_INLINE int64_t sum_of_lanes(D32 d32, hn::Vec<D32> v) {
  const hn::RepartitionToWide<D32> d64;
  const hn::Half<D32> half;
  const auto sum =
      hn::Add(hn::PromoteTo(d64, hn::LowerHalf(half, v)), hn::PromoteTo(d64, hn::UpperHalf(half, v)));
  return hn::GetLane(hn::SumOfLanes(d64, sum));
}

template <int kX, int kW>
HWY_NOINLINE void multiply_block(const int8_t* w, int64_t columns, const int16_t* x, int64_t count,
                                 int64_t* sums) {
  const hn::ScalableTag<int16_t> d16;
  const hn::Rebind<int8_t, decltype(d16)> d8;
  const hn::RepartitionToWide<decltype(d16)> d32;
  using Sum = hn::Vec<decltype(d32)>;
  constexpr int64_t kLanes = HWY_LANES(int16_t);
  int64_t totals[kX][kW] = {};
  int64_t k = 0;
  while (k + kLanes <= columns) {
    const int64_t end = std::min(columns - kLanes, k + (kSteps - 1) * kLanes);
    Sum first[kX][kW], second[kX][kW];
#pragma GCC unroll 8
    for (int m = 0; m < kX; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < kW; ++n) first[m][n] = second[m][n] = hn::Zero(d32);
    }
    for (; k <= end; k += kLanes) {
      hn::Vec<decltype(d16)> factors[kW];
#pragma GCC unroll 8
      for (int n = 0; n < kW; ++n) factors[n] = hn::PromoteTo(d16, hn::LoadU(d8, w + n * columns + k));
#pragma GCC unroll 8
      for (int m = 0; m < kX; ++m) {
        const auto row = hn::LoadU(d16, x + m * columns + k);
#pragma GCC unroll 8
        for (int n = 0; n < kW; ++n)
          first[m][n] = hn::ReorderWidenMulAccumulate(d32, row, factors[n], first[m][n], second[m][n]);
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kX; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < kW; ++n) totals[m][n] += sum_of_lanes(d32, hn::Add(first[m][n], second[m][n]));
    }
  }
  for (; k < columns; ++k)
    for (int m = 0; m < kX; ++m)
      for (int n = 0; n < kW; ++n) totals[m][n] += int64_t{x[m * columns + k]} * w[n * columns + k];
  for (int m = 0; m < kX; ++m)
    for (int n = 0; n < kW; ++n) sums[n * count + m] = totals[m][n];
}

template <int kW>
HWY_INLINE void multiply_rows(const int8_t* w, int64_t columns, const int16_t* x, int64_t count,
                              int64_t* sums) {
  int64_t m = 0;
  for (; m + kRowsOfX <= count; m += kRowsOfX)
    multiply_block<kRowsOfX, kW>(w, columns, x + m * columns, count, sums + m);
  for (; m < count; ++m) multiply_block<1, kW>(w, columns, x + m * columns, count, sums + m);
}

void multiply(const int8_t* w, int64_t rows, int64_t columns, const int16_t* x, int64_t count,
              int64_t* sums) {
  int64_t n = 0;
  for (; n + kRowsOfW <= rows; n += kRowsOfW)
    multiply_rows<kRowsOfW>(w + n * columns, columns, x, count, sums + n * count);
  for (; n < rows; ++n) multiply_rows<1>(w + n * columns, columns, x, count, sums + n * count);
}

void scores(const int16_t* query, const int16_t* keys, const int32_t* rows, int64_t count, int64_t width,
            int64_t* sums) {
  const hn::ScalableTag<int16_t> d16;
  const hn::RepartitionToWide<decltype(d16)> d32;
  constexpr int64_t kLanes = HWY_LANES(int16_t);
  constexpr int64_t kMostSteps = 63;  // 63 * 2 * 4095^2 < 2^31
  for (int64_t j = 0; j < count; ++j) {
    const int16_t* const key = keys + rows[j] * width;
    int64_t sum = 0, k = 0;
    while (k + kLanes <= width) {
      const int64_t end = std::min(width - kLanes, k + (kMostSteps - 1) * kLanes);
      auto first = hn::Zero(d32), second = hn::Zero(d32);
      for (; k <= end; k += kLanes)
        first = hn::ReorderWidenMulAccumulate(d32, hn::LoadU(d16, query + k), hn::LoadU(d16, key + k), first,
                                              second);
      sum += sum_of_lanes(d32, hn::Add(first, second));
    }
    for (; k < width; ++k) sum += int32_t{query[k]} * int32_t{key[k]};
    sums[j] = sum;
  }
}

// The factors in two halves of ten bits, whose products with values have room in 32 bits; two rows at a time.
constexpr int kHalfBits = 10;
constexpr int64_t kMostRows = 64;  // 64 * 2^10 * 32767 < 2^31

// Columns [0, lanes of d16) of the mixture.
template <class D16>
HWY_INLINE void mix_columns(D16 d16, const int32_t* factors, const int16_t* values, const int32_t* rows,
                            int64_t count, int64_t width, int64_t* sums) {
  const hn::RepartitionToWide<D16> d32;
  const hn::RepartitionToWide<decltype(d32)> d64;
  const hn::Half<decltype(d32)> half;
  constexpr int kLanes = HWY_LANES(int32_t), kHalf = kLanes / 2;
  HWY_ALIGN int64_t apart[2 * kLanes] = {};  // the lower and the upper lanes of each 128 bits
  for (int64_t begin = 0; begin < count; begin += kMostRows) {
    const int64_t end = std::min(count, begin + kMostRows);
    // Where an instruction does not add the pairs, it has their sums apart, in two vectors.
    using Sum = hn::Vec<decltype(d32)>;
    Sum sums_of[2][2], others_of[2][2];  // of the high and the low halves, of lower and upper lanes
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
#pragma GCC unroll 2
      for (int side = 0; side < 2; ++side) sums_of[part][side] = others_of[part][side] = hn::Zero(d32);
    }
    for (int64_t j = begin; j < end; j += 2) {
      const bool two = j + 1 < end;
      const int32_t f = factors[j], g = two ? factors[j + 1] : 0;
      const auto a = hn::LoadU(d16, values + rows[j] * width);
      const auto b = hn::LoadU(d16, values + rows[two ? j + 1 : j] * width);
      constexpr int32_t kLow = (1 << kHalfBits) - 1;
      const Sum parts[2] = {hn::Set(d32, f >> kHalfBits | (g >> kHalfBits) << 16),
                            hn::Set(d32, (f & kLow) | (g & kLow) << 16)};
      const hn::Vec<D16> sides[2] = {hn::InterleaveLower(d16, a, b), hn::InterleaveUpper(d16, a, b)};
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
#pragma GCC unroll 2
        for (int side = 0; side < 2; ++side)
          sums_of[part][side] = hn::ReorderWidenMulAccumulate(d32, sides[side], hn::BitCast(d16, parts[part]),
                                                              sums_of[part][side], others_of[part][side]);
      }
    }
#pragma GCC unroll 2
    for (int side = 0; side < 2; ++side) {
      const Sum high = hn::RearrangeToOddPlusEven(sums_of[0][side], others_of[0][side]),
                low = hn::RearrangeToOddPlusEven(sums_of[1][side], others_of[1][side]);
      int64_t* const to = apart + side * kLanes;
      const auto add = [&](auto h, auto l, int64_t* at) HWY_ATTR {
        const auto joined = hn::Add(hn::ShiftLeft<kHalfBits>(hn::PromoteTo(d64, h)), hn::PromoteTo(d64, l));
        hn::StoreU(hn::Add(hn::LoadU(d64, at), joined), d64, at);
      };
      add(hn::LowerHalf(half, high), hn::LowerHalf(half, low), to);
      add(hn::UpperHalf(half, high), hn::UpperHalf(half, low), to + kHalf);
    }
  }
  constexpr int kBlock = 4;  // of 32 bits in 128
  for (int lane = 0; lane < kLanes; ++lane) {
    int64_t* const to = sums + lane / kBlock * 2 * kBlock + lane % kBlock;
    to[0] = apart[lane];
    to[kBlock] = apart[kLanes + lane];
  }
}

void mixture(const int32_t* factors, const int16_t* values, const int32_t* rows, int64_t count, int64_t width,
             int64_t* sums) {
  const hn::ScalableTag<int16_t> d16;
  constexpr int64_t kLanes = HWY_LANES(int16_t);
  int64_t k = 0;
  for (; k + kLanes <= width; k += kLanes)
    mix_columns(d16, factors, values + k, rows, count, width, sums + k);
  std::fill(sums + k, sums + width, int64_t{0});
  for (int64_t j = 0; k < width && j < count; ++j)
    for (int64_t rest = k; rest < width; ++rest)
      sums[rest] += int64_t{factors[j]} * values[rows[j] * width + rest];
}

#endif

}  // namespace
}  // namespace longstride::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride {

HWY_EXPORT(multiply);
HWY_EXPORT(scores);
HWY_EXPORT(mixture);

void whole_products(const int8_t* w, int64_t rows, int64_t columns, const int16_t* x, int64_t count,
                    int64_t* sums) {
  HWY_DYNAMIC_DISPATCH(multiply)(w, rows, columns, x, count, sums);
}

void whole_scores(const int16_t* query, const int16_t* keys, const int32_t* rows, int64_t count,
                  int64_t width, int64_t* sums) {
  HWY_DYNAMIC_DISPATCH(scores)(query, keys, rows, count, width, sums);
}

void whole_mixture(const int32_t* factors, const int16_t* values, const int32_t* rows, int64_t count,
                   int64_t width, int64_t* sums) {
  HWY_DYNAMIC_DISPATCH(mixture)(factors, values, rows, count, width, sums);
}

}  // namespace longstride
#endif
