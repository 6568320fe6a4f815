// Sums of dq in memory, to which blocks of threads add by turns (attention_backward_ordered.cu): how they lie there,
// whose turn it is, and how they are rounded to dq. A tile is 64 queries in f32, its two halves of columns one
// after the other.
#pragma once

#include "longstride/ops/cuda/hopper/attention.cuh"

namespace longstride::cuda::hopper {

// Whose tile of sums waits in shared memory.
struct Turn {
  int tile = -1;  // of all columns; negative: nothing more
  int rank = 0;   // how many add before
};

// Who may store next, as a counter in memory.
__device__ inline void wait_for_turn(const int* counter, int turn) {
  int now;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
  } while (now < turn);
  asm volatile("fence.proxy.async.global;" ::: "memory");  // stores by the TMA come after the wait
}
__device__ inline void pass_turn(int* counter, int turn) {
  asm volatile("fence.proxy.async.global;" ::: "memory");
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(counter), "r"(turn) : "memory");
}

// Sums of dq as they leave for memory: halves of columns one after the other, each with rows of kHalf floats
// whose 32-byte chunks change places from row to row. `half`: of the first column.
template <class Kind, int kColumns>
__device__ void write_sums(const float (&dq)[kColumns / 8][4], uint32_t sums, int half, int warp, int lane) {
  constexpr int kChunks = Kind::kHalf / 8;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = 16 * warp + 8 * r + g, chunk = (j % kChunks) ^ (g & 3);
      store_floats(sums + static_cast<uint32_t>((half + j / kChunks) * Kind::kHalfSumBytes +
                                                4 * (row * Kind::kHalf + 8 * chunk + 2 * t)),
                   dq[j][2 * r], dq[j][2 * r + 1]);
    }
}

struct FinishArgs {
  CompactOrder order;  // of queries
  Rows dq;
  const int* first_pairs;
  const float* sums;
  const int* heads;
  int head_count, first_column;
  float scale;
  bool add;
};

// Sums of a tile of queries, rounded: a block of threads a tile, eight columns a thread at a time.
template <class T, int kWidth>
__global__ void finish_kernel(const FinishArgs a) {
  constexpr int kChunks = kWidth / 8, kHalfChunks = kChunks / 2;
  const int tile = static_cast<int>(blockIdx.x), column = a.first_column + static_cast<int>(blockIdx.y);
  const TilePlace place = a.order.place(tile);
  const bool any = __ldg(a.first_pairs + tile) >= 0;
  T* const rows = a.dq.of<T>(column / a.head_count, __ldg(a.heads + column % a.head_count));
  const float4* const sums = reinterpret_cast<const float4*>(
      a.sums + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * kRows * kWidth);
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += 256) {
    const int row = i / kChunks, chunk = i % kChunks, half = chunk / kHalfChunks, j = chunk % kHalfChunks;
    uint32_t position;
    if (!place.find(row, position) || 8 * chunk >= a.dq.width) continue;
    T* const to = rows + static_cast<int64_t>(position) * a.dq.position + 8 * chunk;
    Eight sum{};
    if (any) {
      const float4* const from = sums + ((half * kRows + row) * kHalfChunks + (j ^ (row & 3))) * 2;
      const float4 low = __ldcs(from), high = __ldcs(from + 1);
      sum = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#pragma unroll
      for (int e = 0; e < 8; ++e) sum.v[e] *= a.scale;
    }
    if (a.add) {
      if (!any) continue;
      const Eight before = load8(to);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum.v[e] += before.v[e];
    }
    store8(to, sum);
  }
}

}  // namespace longstride::cuda::hopper
