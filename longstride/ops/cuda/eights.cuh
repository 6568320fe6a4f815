// Eight elements of a row, some of which may lie beyond its end, and whose address may not suit vectors.
#pragma once

#include "longstride/ops/cuda/common.cuh"

namespace longstride::cuda {

inline constexpr int kThreads = 256;  // of a block of the element-wise kernels

// How many of the eight elements from `first` on are below `count`.
__device__ inline int of_eight(int64_t first, int64_t count) {
  return first + 8 <= count ? 8 : first < count ? static_cast<int>(count - first) : 0;
}

// The first n of p[0..7], then `rest`. `vectors`: p is 16-byte aligned.
template <class T>
__device__ inline Eight read8(const T* p, int n, bool vectors, float rest = 0) {
  if (vectors && n == 8) return load8(p);
  Eight x;
#pragma unroll
  for (int i = 0; i < 8; ++i) x.v[i] = i < n ? to_float(p[i]) : rest;
  return x;
}

template <class T>
__device__ inline void write8(T* p, const Eight& x, int n, bool vectors) {
  if (vectors && n == 8) return store8(p, x);
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (i < n) p[i] = from_float<T>(x.v[i]);
}

// Whether eight elements from a multiple of eight on can be one access, for every one of these addresses.
template <class... Pointers>
bool vectors_suit(const Pointers*... p) {
  return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...);
}

// Blocks that give each eight of `count` elements a thread.
inline unsigned blocks_of_eights(int64_t count) {
  return static_cast<unsigned>(ceil_div(count, int64_t{8} * kThreads));
}

// The first of this thread's eight elements.
__device__ inline int64_t first_of_eight() {
  return 8 * (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x);
}

}  // namespace longstride::cuda
