// Adam in one pass, the sum of squares that clipping needs, and conversions between float types (contract:
// longstride/ops/adam.h). Element by element, eight a thread; the sum of squares in double, over a grid of
// fixed size and then on the CPU, always in the same order. No scratch.
#include "longstride/ops/adam.h"
#include "longstride/ops/cuda/adam.cuh"
#include "longstride/ops/cuda/eights.cuh"

namespace longstride::cuda {

namespace {

template <class T>
struct AdamPointers {
  float* w;
  const float* g;
  float *m, *v;
  float* average;  // or null
  T* compute;      // or null
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(AdamPointers<T> p, AdamNumbers numbers, int64_t count, bool vectors) {
  const int64_t i = first_of_eight();
  const int n = of_eight(i, count);
  if (n == 0) return;
  Eight w = read8(p.w + i, n, vectors), m = read8(p.m + i, n, vectors), v = read8(p.v + i, n, vectors);
  const Eight g = read8(p.g + i, n, vectors);
  Eight average{};
  if (p.average) average = read8(p.average + i, n, vectors);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const AdamElement e = adam_element({w.v[j], m.v[j], v.v[j], average.v[j]}, g.v[j], numbers);
    w.v[j] = e.w, m.v[j] = e.m, v.v[j] = e.v, average.v[j] = e.average;
  }
  write8(p.w + i, w, n, vectors);
  write8(p.m + i, m, n, vectors);
  write8(p.v + i, v, n, vectors);
  if (p.average) write8(p.average + i, average, n, vectors);
  if (p.compute) write8(p.compute + i, w, n, vectors);
}

// ---- sum of squares ----

constexpr int kSquareBlocks = 512;
__device__ double square_sums[kSquareBlocks];

__global__ void __launch_bounds__(kThreads) squares_kernel(const float* x, int64_t count, bool vectors) {
  __shared__ double of_thread[kThreads];
  double sum = 0;
  const int64_t step = int64_t{8} * kThreads * kSquareBlocks;
  for (int64_t i = first_of_eight(); i < count; i += step) {
    const Eight values = read8(x + i, of_eight(i, count), vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      sum = fma(static_cast<double>(values.v[j]), static_cast<double>(values.v[j]), sum);
  }
  of_thread[threadIdx.x] = sum;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) of_thread[threadIdx.x] += of_thread[threadIdx.x + half];
  }
  if (threadIdx.x == 0) square_sums[blockIdx.x] = of_thread[0];
}

// ---- conversions ----

template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(const From* from, To* to, int64_t count, bool vectors) {
  const int64_t i = first_of_eight();
  const int n = of_eight(i, count);
  if (n > 0) write8(to + i, read8(from + i, n, vectors), n, vectors);
}

}  // namespace

template <>
void compute(const OpContext&, const AdamUpdate& t) {
  const int64_t count = t.w.count();
  if (count == 0) return;
  with_float_type(t.compute ? t.compute.dtype : DType::bf16, [&](auto element) {
    using T = decltype(element);
    AdamPointers<T> p{data_of<float>(t.w), data_of<float>(t.g),       data_of<float>(t.m),
                      data_of<float>(t.v), data_of<float>(t.average), data_of<T>(t.compute)};
    adam_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(
        p, adam_numbers(t.step), count, vectors_suit(p.w, p.g, p.m, p.v, p.average, p.compute));
  });
  check_launch("adam_step");
}

template <>
void compute(const OpContext&, const SumOfSquares& t) {
  const float* data = data_of<float>(t.x);
  squares_kernel<<<kSquareBlocks, kThreads, 0, current()>>>(data, t.x.count(), vectors_suit(data));
  check_launch("sum_of_squares");
  void* sums = nullptr;
  LONGSTRIDE_CUDA_CHECK(cudaGetSymbolAddress(&sums, square_sums));
  double of_block[kSquareBlocks];
  copy(of_block, sums, sizeof(of_block));
  double sum = 0;
  for (double value : of_block) sum += value;
  *t.sum = sum;
}

template <>
void compute(const OpContext&, const Convert& t) {
  const int64_t count = t.from.count();
  if (count == 0) return;
  with_float_type(t.from.dtype, [&](auto source) {
    with_float_type(t.to.dtype, [&](auto target) {
      const auto* x = data_of<decltype(source)>(t.from);
      auto* y = data_of<decltype(target)>(t.to);
      convert_kernel<<<blocks_of_eights(count), kThreads, 0, current()>>>(x, y, count, vectors_suit(x, y));
    });
  });
  check_launch("convert");
}

}  // namespace longstride::cuda
