// Values mixed with the first block's (contract: longstride/ops/value_mix.h). Elements are independent: the
// same bits for any number of threads. No scratch.
#include "longstride/ops/value_mix.h"

#include <algorithm>

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/value_mix.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// One row of `width` elements. `share` is that of the first block, `own` the rest.
template <class T>
HWY_INLINE void mix_row(T* x, const T* first, int64_t width, float share, float own) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto kept = hn::Mul(load(d, x + i), hn::Set(d, own));
    store(hn::MulAdd(load(d, first + i), hn::Set(d, share), kept), d, x + i);
  });
}

template <class T>
HWY_INLINE void split_gradient(T* dx, float* d_first, int64_t width, float share, float own, bool adds) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    const auto gradient = load(d, dx + i), part = hn::Set(d, share);
    hn::StoreU(adds ? hn::MulAdd(gradient, part, hn::LoadU(d, d_first + i)) : hn::Mul(gradient, part), d,
               d_first + i);
    store(hn::Mul(gradient, hn::Set(d, own)), d, dx + i);
  });
}

template <class T>
HWY_INLINE void add_gradient(T* dx, const float* d_first, int64_t width) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    store(hn::Add(load(d, dx + i), hn::LoadU(d, d_first + i)), d, dx + i);
  });
}

// Rows [begin, end).
void mix_rows(const ValueMix& t, int64_t begin, int64_t end) {
  const int64_t width = t.x.shape[1];
  const float own = 1.0f - t.share;
  with_type(t.x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      T* const x = t.x.as<T>() + row * t.x.stride[0];
      switch (t.pass) {
        case ValueMix::Pass::forward:
          mix_row<T>(x, t.first.as<T>() + row * t.first.stride[0], width, t.share, own);
          break;
        case ValueMix::Pass::backward:
          split_gradient(x, t.first.as<float>() + row * t.first.stride[0], width, t.share, own, t.adds);
          break;
        case ValueMix::Pass::backward_first:
          add_gradient(x, t.first.as<float>() + row * t.first.stride[0], width);
          break;
        case ValueMix::Pass::keep:
          std::copy_n(x, width, t.first.as<T>() + row * t.first.stride[0]);
          break;
      }
    }
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(mix_rows);

void value_mix(const OpContext&, const ValueMix& t) {
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(mix_rows)(t, begin, end);
  });
}

}  // namespace longstride::cpu
#endif
