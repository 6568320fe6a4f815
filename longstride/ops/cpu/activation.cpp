// f(x) = x s, f'(x) = s + 1.702 x s (1 - s) with s = sigmoid(1.702 x). Element by element in f32: the same
// bits for any number of threads. No scratch.
#include "longstride/ops/cpu/ops.h"
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
  return hn::Div(one, hn::Add(one, exponential(d, hn::Mul(x, hn::Set(d, -1.702f)))));
}

void activation(const float* x, float* y, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto value = hn::LoadU(d, x + i);
    hn::StoreU(hn::Mul(value, gate(d, value)), d, y + i);
  });
}

void activation_gradient(const float* dy, const float* x, float* dx, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto value = hn::LoadU(d, x + i);
    const auto s = gate(d, value);
    const auto slope = hn::Mul(hn::Mul(value, hn::Set(d, 1.702f)), hn::Sub(hn::Set(d, 1.0f), s));
    hn::StoreU(hn::Mul(hn::LoadU(d, dy + i), hn::MulAdd(slope, s, s)), d, dx + i);
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(activation);
HWY_EXPORT(activation_gradient);

void activation_forward(const OpContext& context, const Tensor& x, const Tensor& y) {
  const float* from = x.as<float>();
  float* to = y.as<float>();
  parallel_pieces(x.count(), kElementsPerPiece, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activation)(from + begin, to + begin, end - begin);
  });
}

void activation_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& dx) {
  const float *d_out = dy.as<float>(), *from = x.as<float>();
  float* to = dx.as<float>();
  parallel_pieces(x.count(), kElementsPerPiece, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activation_gradient)(d_out + begin, from + begin, to + begin, end - begin);
  });
}

}  // namespace longstride::cpu
#endif
