// Conversions between f32 and bf16. The same bits for any number of threads. No scratch.
#include "longstride/ops/cpu/convert.h"

#include "longstride/ops/adam.h"
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
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR { store(load(d, from + i), d, to + i); });
}

void round_through_bf16(const float* from, float* to, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto rounded = hn::ShiftLeft<16>(bf16_bits(d, load(d, from + i)));
    store(hn::BitCast(d, rounded), d, to + i);
  });
}

void widen_bf16(const Bf16* from, float* to, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR { store(load(d, from + i), d, to + i); });
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
void convert_rows(const From* from, int64_t from_stride, int64_t rows, int64_t width, To* to,
                  int64_t to_stride, const Convert& convert) {
  if ((from_stride == width && to_stride == width) || rows == 1) {
    parallel_pieces(rows * width, kElementsPerPiece,
                    [&](int64_t begin, int64_t end) { convert(from + begin, to + begin, end - begin); });
    return;
  }
  parallel_rows(rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      convert(from + row * from_stride, to + row * to_stride, width);
  });
}
}  // namespace

void round_rows(const float* from, int64_t from_stride, int64_t rows, int64_t width, Bf16* to,
                int64_t to_stride) {
  convert_rows(from, from_stride, rows, width, to, to_stride, HWY_DYNAMIC_DISPATCH(round_to_bf16));
}

void round_rows(const float* from, int64_t from_stride, int64_t rows, int64_t width, float* to,
                int64_t to_stride) {
  convert_rows(from, from_stride, rows, width, to, to_stride, HWY_DYNAMIC_DISPATCH(round_through_bf16));
}

void widen_rows(const Bf16* from, int64_t from_stride, int64_t rows, int64_t width, float* to,
                int64_t to_stride) {
  convert_rows(from, from_stride, rows, width, to, to_stride, HWY_DYNAMIC_DISPATCH(widen_bf16));
}

template <>
void compute(const OpContext& context, const Convert& t) {
  const int64_t count = t.from.count();
  if (t.from.dtype == t.to.dtype)
    copy(t.from, t.to);
  else if (t.to.dtype == DType::bf16)
    round_rows(t.from.as<float>(), count, 1, count, t.to.as<Bf16>(), count);
  else
    widen_rows(t.from.as<Bf16>(), count, 1, count, t.to.as<float>(), count);
}

}  // namespace longstride::cpu
#endif
