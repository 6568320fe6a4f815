// Normalised and rotated queries and keys (contract: longstride/ops/query_key.h). Heads are independent: the
// same bits for any number of threads. No scratch.
#include "longstride/ops/query_key.h"

#include <cmath>

#include "longstride/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/query_key.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// A head's channels as pairs i, i + half. If the width is odd, which only a norm allows, the first half has
// one channel more, alone.
template <class T>
struct Halves {
  T *first, *second;
  int64_t half, pairs;
  Halves(T* x, int64_t width)
      : first(x), second(x + (width + 1) / 2), half((width + 1) / 2), pairs(width / 2) {}
};

// The sum of body(tag, i), one vector for each call, over [0, count).
template <class Body>
HWY_INLINE float sum_over(int64_t count, const Body& body) {
  const hn::ScalableTag<float> d;
  auto lanes = hn::Zero(d);
  float rest = 0;
  for_each_vector(count, [&](auto tag, int64_t i) HWY_ATTR {
    const auto value = body(tag, i);
    if constexpr (std::is_same_v<decltype(tag), hn::ScalableTag<float>>)
      lanes = hn::Add(lanes, value);
    else
      rest += hn::GetLane(value);
  });
  return hn::GetLane(hn::SumOfLanes(d, lanes)) + rest;
}

// `turn` is the position's cosines and sines, or null. `reciprocal_rms` is where the reciprocal is written,
// or null.
template <class T>
HWY_INLINE void forward(T* x, int64_t width, const float* turn, float* reciprocal_rms) {
  const Halves<T> h(x, width);
  float factor = 1;
  if (reciprocal_rms != nullptr) {
    const float squares = sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
      const auto value = load(d, x + i);
      return hn::Mul(value, value);
    });
    factor = 1.0f / std::sqrt(squares / static_cast<float>(width) + kQueryKeyEpsilon);
    *reciprocal_rms = factor;
  }
  if (turn == nullptr) {
    for_each_vector(width, [&](auto d, int64_t i)
                               HWY_ATTR { store(hn::Mul(load(d, x + i), hn::Set(d, factor)), d, x + i); });
    return;
  }
  for_each_vector(h.pairs, [&](auto d, int64_t i) HWY_ATTR {
    const auto times = hn::Set(d, factor);
    const auto a = hn::Mul(load(d, h.first + i), times), b = hn::Mul(load(d, h.second + i), times);
    const auto c = hn::LoadU(d, turn + i), s = hn::LoadU(d, turn + h.half + i);
    store(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, h.first + i);
    store(hn::MulAdd(a, s, hn::Mul(b, c)), d, h.second + i);
  });
}

// y is the forward's output. With g the gradient turned back and z = y turned back, the normalised x: dx =
// (g - z mean(g z)) / rms. Turning does not change the sum of products, so dy y gives the mean too.
template <class T>
HWY_INLINE void backward(const T* y, T* dx, int64_t width, const float* turn, const float* reciprocal_rms) {
  float factor = 1, along = 0;
  if (reciprocal_rms != nullptr) {
    factor = *reciprocal_rms;
    along = sum_over(width,
                     [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load(d, y + i), load(d, dx + i)); }) /
            static_cast<float>(width);
  }
  const auto gradient = [&](auto d, int64_t i) HWY_ATTR {
    return hn::Mul(hn::NegMulAdd(load(d, y + i), hn::Set(d, along), load(d, dx + i)), hn::Set(d, factor));
  };
  if (turn == nullptr) {
    for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR { store(gradient(d, i), d, dx + i); });
    return;
  }
  const Halves<T> h(dx, width);
  for_each_vector(h.pairs, [&](auto d, int64_t i) HWY_ATTR {
    const auto a = gradient(d, i), b = gradient(d, h.half + i);
    const auto c = hn::LoadU(d, turn + i), s = hn::LoadU(d, turn + h.half + i);
    store(hn::MulAdd(b, s, hn::Mul(a, c)), d, h.first + i);
    store(hn::NegMulAdd(a, s, hn::Mul(b, c)), d, h.second + i);
  });
}

const float* turn_of(const QueryKey& t, int64_t position) {
  return t.rotation ? t.rotation.as<float>() + position * t.rotation.shape[1] : nullptr;
}
float* rms_of(const QueryKey& t, int64_t row, int64_t head) {
  return t.reciprocal_rms ? t.reciprocal_rms.as<float>() + row * 2 * t.heads + head : nullptr;
}

// Rows [begin, end). `positions` has one for each row, or is null.
void forward_rows(const QueryKey& t, const int64_t* positions, int64_t begin, int64_t end) {
  const int64_t heads = 2 * t.heads, width = t.x.shape[1] / heads;
  with_type(t.x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = positions != nullptr ? positions[row]
                               : t.rotation         ? row % t.rotation.shape[0]
                                                    : 0;
      for (int64_t head = 0; head < heads; ++head)
        forward(t.x.as<T>() + row * t.x.stride[0] + head * width, width, turn_of(t, position),
                rms_of(t, row, head));
    }
  });
}

void backward_rows(const QueryKey& t, const Tensor& dx, int64_t begin, int64_t end) {
  const int64_t heads = 2 * t.heads, width = t.x.shape[1] / heads;
  with_type(t.x.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row)
      for (int64_t head = 0; head < heads; ++head)
        backward<T>(t.x.as<T>() + row * t.x.stride[0] + head * width,
                    dx.as<T>() + row * dx.stride[0] + head * width, width,
                    turn_of(t, t.rotation ? row % t.rotation.shape[0] : 0), rms_of(t, row, head));
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(forward_rows);
HWY_EXPORT(backward_rows);

namespace {
void forward(const QueryKey& t, const int64_t* positions) {
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(forward_rows)(t, positions, begin, end);
  });
}
}  // namespace

template <>
void compute(const OpContext&, const QueryKeyForward& call) {
  forward(call.t, nullptr);
}

template <>
void compute(const OpContext&, const QueryKeyAt& call) {
  forward(call.t, call.positions.data());
}

template <>
void compute(const OpContext&, const QueryKeyBackward& call) {
  const QueryKey& t = call.t;
  parallel_rows(t.x.shape[0], t.x.shape[1], [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(backward_rows)(t, call.dx, begin, end);
  });
}

}  // namespace longstride::cpu
#endif
