// Conversions between f32 and bf16. The same bits for any number of threads. No scratch.
#include "longstride/ops/cpu/convert.h"

#include "longstride/ops/cpu/ops.h"
#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/convert.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

void round_to_bf16(const float* from, Bf16* to, int64_t count) {
  uint16_t* bits = reinterpret_cast<uint16_t*>(to);
  for_each_vector(count,
                  [&](auto d, int64_t i) HWY_ATTR { store_bf16(d, hn::LoadU(d, from + i), bits + i); });
}

void round_through_bf16(const float* from, float* to, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto rounded = hn::ShiftLeft<16>(bf16_bits(d, hn::LoadU(d, from + i)));
    hn::StoreU(hn::BitCast(d, rounded), d, to + i);
  });
}

void widen_bf16(const Bf16* from, float* to, int64_t count) {
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(from);
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const hn::Rebind<uint16_t, decltype(d)> d16;
    const hn::Rebind<uint32_t, decltype(d)> du;
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, bits + i)))), d, to + i);
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(round_to_bf16);
HWY_EXPORT(round_through_bf16);
HWY_EXPORT(widen_bf16);

namespace {
// Calls convert(from, to, count) on runs of elements.
template <class From, class To, class Convert>
void convert_rows(const From* from, int64_t row_stride, int64_t rows, int64_t width, To* to,
                  const Convert& convert) {
  if (row_stride == width || rows == 1) {
    parallel_pieces(rows * width, kElementsPerPiece,
                    [&](int64_t begin, int64_t end) { convert(from + begin, to + begin, end - begin); });
    return;
  }
  parallel_rows(rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) convert(from + row * row_stride, to + row * width, width);
  });
}
}  // namespace

void round_rows(const float* from, int64_t row_stride, int64_t rows, int64_t width, Bf16* to) {
  convert_rows(from, row_stride, rows, width, to, HWY_DYNAMIC_DISPATCH(round_to_bf16));
}

void round_rows(const float* from, int64_t row_stride, int64_t rows, int64_t width, float* to) {
  convert_rows(from, row_stride, rows, width, to, HWY_DYNAMIC_DISPATCH(round_through_bf16));
}

void widen_rows(const Bf16* from, int64_t row_stride, int64_t rows, int64_t width, float* to) {
  convert_rows(from, row_stride, rows, width, to, HWY_DYNAMIC_DISPATCH(widen_bf16));
}

void convert(const OpContext& context, const Tensor& from, const Tensor& to) {
  const int64_t count = from.count();
  if (to.dtype == DType::f32)
    copy(from, to);
  else
    round_rows(from.as<float>(), count, 1, count, to.as<Bf16>());
}

}  // namespace longstride::cpu
#endif
