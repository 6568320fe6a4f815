// What the kernels share: the stream, element types as the hardware has them, eight elements at a time, sums
// over a warp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "longstride/base/check.h"
#include "longstride/base/dtype.h"
#include "longstride/base/tensor.h"
#include "longstride/device/cuda.h"
#include "longstride/device/cuda_check.h"

namespace longstride::cuda {

inline constexpr int kWarp = 32;

inline cudaStream_t current() { return static_cast<cudaStream_t>(stream()); }

// After every launch: what it was given may be wrong (too much shared memory, an empty grid).
inline void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) [[unlikely]]
    fail_in(status, "at the launch of", kernel);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- element types ----

// Calls action(T{}) with the hardware's type of a float dtype: float, __nv_bfloat16 or __half.
template <class Action>
decltype(auto) with_float_type(DType dtype, Action&& action) {
  switch (dtype) {
    case DType::bf16:
      return action(__nv_bfloat16{});
    case DType::f16:
      return action(__half{});
    default:
      LONGSTRIDE_CHECK(dtype == DType::f32, "a GPU op for {}", name_of(dtype));
      return action(float{});
  }
}

template <class T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }

template <class T>
__device__ T from_float(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(x);
  else if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(x);
  else
    return x;
}

// 2^x to the precision of f32 less a bit; 2^-inf = 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- eight elements at a time ----

// Whether rows of `width` elements from `data` on can be read eight at a time.
inline bool eights(const void* data, int64_t width) {
  return width % 8 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

struct Eight {
  float v[8];
};

// `p` is 16-byte aligned.
__device__ inline Eight load8(const float* p) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ inline void store8(float* p, const Eight& x) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}

template <class T>  // 16 bits
__device__ inline Eight load8(const T* p) {
  static_assert(sizeof(T) == 2);
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const T* elements = reinterpret_cast<const T*>(&raw);
  Eight x;
#pragma unroll
  for (int i = 0; i < 8; ++i) x.v[i] = to_float(elements[i]);
  return x;
}

template <class T>
__device__ inline void store8(T* p, const Eight& x) {
  static_assert(sizeof(T) == 2);
  uint4 raw;
  T* elements = reinterpret_cast<T*>(&raw);
#pragma unroll
  for (int i = 0; i < 8; ++i) elements[i] = from_float<T>(x.v[i]);
  *reinterpret_cast<uint4*>(p) = raw;
}

// ---- reductions ----

// The sum over the warp, in every lane; always in the same order.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

}  // namespace longstride::cuda
