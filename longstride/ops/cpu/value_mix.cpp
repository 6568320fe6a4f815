// Values mixed with the first block's (contract: longstride/ops/value_mix.h). Elements are independent: the
// same bits for any number of threads. No scratch.
#include "longstride/ops/value_mix.h"

#include <cstring>

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/value_mix.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

template <class T>
T* row_of(const Tensor& t, int64_t row) {
  return t.as<T>() + row * t.stride[0];
}

// Rows [begin, end) of each call.

void mix_rows(const ValueMixForward& t, int64_t begin, int64_t end) {
  const float own = 1.0f - t.share;
  with_type(t.x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      T* const x = row_of<T>(t.x, row);
      const T* const first = row_of<T>(t.first, row);
      for_each_vector(t.x.shape[1], [&](auto d, int64_t i) HWY_ATTR {
        const auto kept = hn::Mul(load(d, x + i), hn::Set(d, own));
        store(hn::MulAdd(load(d, first + i), hn::Set(d, t.share), kept), d, x + i);
      });
    }
  });
}

void split_gradients(const ValueMixBackward& t, int64_t begin, int64_t end) {
  const float own = 1.0f - t.share;
  with_type(t.dx.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      T* const dx = row_of<T>(t.dx, row);
      float* const d_first = row_of<float>(t.d_first, row);
      for_each_vector(t.dx.shape[1], [&](auto d, int64_t i) HWY_ATTR {
        const auto gradient = load(d, dx + i), part = hn::Set(d, t.share);
        hn::StoreU(t.adds ? hn::MulAdd(gradient, part, hn::LoadU(d, d_first + i)) : hn::Mul(gradient, part),
                   d, d_first + i);
        store(hn::Mul(gradient, hn::Set(d, own)), d, dx + i);
      });
    }
  });
}

void add_gradients(const ValueMixBackwardFirst& t, int64_t begin, int64_t end) {
  with_type(t.dx.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      T* const dx = row_of<T>(t.dx, row);
      const float* const d_first = row_of<float>(t.d_first, row);
      for_each_vector(t.dx.shape[1], [&](auto d, int64_t i) HWY_ATTR {
        store(hn::Add(load(d, dx + i), hn::LoadU(d, d_first + i)), d, dx + i);
      });
    }
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(mix_rows);
HWY_EXPORT(split_gradients);
HWY_EXPORT(add_gradients);

template <>
void compute(const OpContext&, const ValueMixForward& t) {
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(mix_rows)(t, begin, end);
  });
}

template <>
void compute(const OpContext&, const ValueMixBackward& t) {
  parallel_rows(t.dx.shape[0], t.dx.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(split_gradients)(t, begin, end);
  });
}

template <>
void compute(const OpContext&, const ValueMixBackwardFirst& t) {
  parallel_rows(t.dx.shape[0], t.dx.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_gradients)(t, begin, end);
  });
}

template <>
void compute(const OpContext&, const ValueMixKeep& t) {
  const auto row_bytes = static_cast<size_t>(t.x.shape[1] * size_of(t.x.dtype));
  const auto at = [](const Tensor& rows, int64_t row) {
    return static_cast<char*>(rows.data) + row * rows.stride[0] * size_of(rows.dtype);
  };
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) std::memcpy(at(t.first, row), at(t.x, row), row_bytes);
  });
}

}  // namespace longstride::cpu
#endif
