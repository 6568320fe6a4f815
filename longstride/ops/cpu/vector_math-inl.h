// Vector functions for several ops. Included once for each instruction set: see Highway's "-inl.h"
// convention.
#if defined(LONGSTRIDE_OPS_CPU_VECTOR_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSTRIDE_OPS_CPU_VECTOR_MATH_INL_H
#undef LONGSTRIDE_OPS_CPU_VECTOR_MATH_INL_H
#else
#define LONGSTRIDE_OPS_CPU_VECTOR_MATH_INL_H
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "longstride/base/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Calls body(tag, i) for i = 0, N, 2N, ... and, for the rest, with a tag of one lane. So tails take the same
// instructions as the rest, and no load or store passes the end.
template <class Body>
HWY_INLINE void for_each_vector(int64_t count, const Body& body) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  for (; i < count; ++i) body(one, i);
}

// e^x to about two units in the last place; 0 below -87, e^88 above 88, NaN for NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exponential(D d, V x) {
  const hn::Rebind<int32_t, D> di;
  const auto too_small = hn::Lt(x, hn::Set(d, -87.0f));
  const V limit = hn::Set(d, 88.0f);
  x = hn::IfThenElse(hn::Gt(x, limit), limit, x);
  // x = n ln 2 + r with |r| <= ln(2) / 2; ln 2 in two parts, the first short enough for an exact n ln 2.
  const V n = hn::Round(hn::Mul(x, hn::Set(d, 1.442695041f)));
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::Set(d, 1.0f / 5040);
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 720));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 120));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 24));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 6));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127));
  const V result = hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(exponent)));
  return hn::IfThenZeroElse(too_small, result);
}

// The bits of the nearest bf16 in the low half of each lane, ties to even; NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE auto bf16_bits(D d, V x) {
  const hn::Rebind<uint32_t, D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));
  const auto is_number = hn::RebindMask(du, hn::Eq(x, x));
  return hn::IfThenElse(is_number, rounded, quiet);
}

// Elements in memory are f32 or bf16; in registers they are f32.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Bf16* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> du;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE void store(V x, D d, float* to) {
  hn::StoreU(x, d, to);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store(V x, D d, Bf16* to) {
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, bf16_bits(d, x))), d16, reinterpret_cast<uint16_t*>(to));
}

// Calls body(element) with an element of the type of `dtype`, f32 or bf16.
template <class Body>
HWY_INLINE void with_type(DType dtype, const Body& body) {
  if (dtype == DType::bf16)
    body(Bf16());
  else
    body(0.0f);
}

// One vector of elements of any type that kernels read, converted to floats.
template <class D>
HWY_INLINE hn::Vec<D> load_as_float(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_as_float(D d, const Bf16* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> du;
  const auto bits = hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}
template <class D>
HWY_INLINE hn::Vec<D> load_as_float(D d, const int8_t* from) {
  const hn::Rebind<int8_t, D> d8;
  const hn::Rebind<int32_t, D> di;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, from)));
}

// Two vectors' worth of neighbouring elements as floats, in an order that depends only on the type: for
// bf16, first those at even places, then those at odd ones, since each take one instruction.
template <class D, class T>
HWY_INLINE void load_two(D d, const T* from, hn::Vec<D>& first, hn::Vec<D>& second) {
  first = load_as_float(d, from);
  second = load_as_float(d, from + hn::Lanes(d));
}
template <class D>
HWY_INLINE void load_two(D d, const Bf16* from, hn::Vec<D>& first, hn::Vec<D>& second) {
  const hn::RebindToUnsigned<D> du;
  const auto pairs = hn::BitCast(du, hn::LoadU(d, reinterpret_cast<const float*>(from)));
  first = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
  second = hn::BitCast(d, hn::And(pairs, hn::Set(du, 0xffff0000u)));
}

}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
