// f(x) = x s, f'(x) = s + 1.702 x s (1 - s) with s = sigmoid(1.702 x). Element by element, computed in f32
// whatever the tensors hold. The same bits for any number of threads. No scratch.
#include "longstride/ops/activation.h"

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/activation.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

template <class D, class V = hn::Vec<D>>
HWY_INLINE V gate(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  // A division takes longer than all the rest. Two steps of Newton's method from the hardware's estimate are
  // exact to the last place or two.
  const V divisor = hn::Add(one, exponential(d, hn::Mul(x, hn::Set(d, -1.702f))));
  V inverse = hn::ApproximateReciprocal(divisor);
  for (int step = 0; step < 2; ++step)
    inverse = hn::MulAdd(inverse, hn::NegMulAdd(divisor, inverse, one), inverse);
  return inverse;
}

template <class T>
HWY_INLINE void activate(const T* x, T* y, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto value = load(d, x + i);
    store(hn::Mul(value, gate(d, value)), d, y + i);
  });
}

// y may be null.
template <class T>
HWY_INLINE void differentiate(const T* dy, const T* x, T* dx, T* y, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto value = load(d, x + i);
    const auto s = gate(d, value);
    const auto slope = hn::Mul(hn::Mul(value, hn::Set(d, 1.702f)), hn::Sub(hn::Set(d, 1.0f), s));
    store(hn::Mul(load(d, dy + i), hn::MulAdd(slope, s, s)), d, dx + i);
    if (y) store(hn::Mul(value, s), d, y + i);
  });
}

// Elements [begin, end) of the tensors.
void activation(const Tensor& x, const Tensor& y, int64_t begin, int64_t end) {
  with_type(x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    activate(x.as<T>() + begin, y.as<T>() + begin, end - begin);
  });
}

void activation_gradient(const Tensor& dy, const Tensor& x, const Tensor& dx, const Tensor& y, int64_t begin,
                         int64_t end) {
  with_type(x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    differentiate(dy.as<T>() + begin, x.as<T>() + begin, dx.as<T>() + begin, y ? y.as<T>() + begin : nullptr,
                  end - begin);
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(activation);
HWY_EXPORT(activation_gradient);

template <>
void compute(const OpContext& context, const ActivationForward& t) {
  parallel_pieces(t.x.count(), kElementsPerPiece, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activation)(t.x, t.y, begin, end);
  });
}

template <>
void compute(const OpContext& context, const ActivationBackward& t) {
  parallel_pieces(t.x.count(), kElementsPerPiece, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activation_gradient)(t.dy, t.x, t.dx, t.y, begin, end);
  });
}

}  // namespace longstride::cpu
#endif
