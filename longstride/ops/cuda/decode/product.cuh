// y (S, rows) = x (S, width) w^T for few rows of x: the time is that of reading w once.
//
// A block takes tiles of eight outputs; its warps share the width, and their parts are added in order. On
// 16-bit elements a warp multiplies by mma.m16n8k16 with sixteen sequences as rows, so that one sequence
// costs what sixteen do. The sum of an output is the same bits for any number of sequences and blocks.
//
// What a block reads of w does not depend on x, so its first two loads may be under way before x is known.
#pragma once

#include "longstride/ops/cuda/decode/args.h"
#include "longstride/ops/cuda/mma.cuh"

namespace longstride::cuda::decode {

inline constexpr int kOutputs = 8;  // of a tile
inline constexpr int kDepth = 32;   // of the width, at a time: four lanes with eight elements each
inline constexpr int kSteps = 4;    // depths that a warp loads at a time
inline constexpr int kRows = 16;    // sequences of an mma

// Shared memory of a product that takes `row_tiles` times kRows sequences at a time: two tiles' parts.
constexpr int part_floats(int row_tiles) { return 2 * kWarps * row_tiles * kRows * kOutputs; }

// Eight elements as they lie in memory.
template <class T>
struct alignas(16) Eights {
  T v[8];
};

template <class T>
__device__ inline Eights<T> no_eights() {
  Eights<T> e;
#pragma unroll
  for (int i = 0; i < 8; ++i) e.v[i] = from_float<T>(0.0f);
  return e;
}

// Elements that no one writes while a kernel runs.
template <class T>
__device__ inline Eights<T> read_constant(const T* p) {
  Eights<T> e;
  uint4* to = reinterpret_cast<uint4*>(&e);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(e) / 16); ++i)
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[i].x), "=r"(to[i].y), "=r"(to[i].z), "=r"(to[i].w)
                 : "l"(reinterpret_cast<const uint4*>(p) + i));
  return e;
}

// Elements that other blocks may have written in this kernel: past the first-level cache.
template <class T>
__device__ inline Eights<T> read_shared_by_all(const T* p) {
  Eights<T> e;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(e) / 16); ++i)
    reinterpret_cast<uint4*>(&e)[i] = __ldcg(reinterpret_cast<const uint4*>(p) + i);
  return e;
}

// What one load of a warp brings: up to kSteps depths of one tile's eight outputs.
template <class T>
struct Load {
  Eights<T> w[kSteps];
};

// This warp's share of a product: its part of the width in `loads` loads a tile, for the tiles of its block.
template <class T>
struct Share {
  const T* w;
  int rows, width, first_tile, tile_step, tiles;  // tiles: of this block
  int begin, end, loads;                          // depths [begin, end)
  bool vectors;

  __device__ Share(const Weight& weight, int block, int blocks)
      : w(static_cast<const T*>(weight.w)),
        rows(weight.rows),
        width(weight.width),
        first_tile(block),
        tile_step(blocks),
        vectors(weight.vectors) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int all_tiles = (rows + kOutputs - 1) / kOutputs, depths = (width + kDepth - 1) / kDepth;
    tiles = block < all_tiles ? (all_tiles - block + blocks - 1) / blocks : 0;
    begin = depths * warp / kWarps, end = depths * (warp + 1) / kWarps;
    loads = (depths + kWarps * kSteps - 1) / (kWarps * kSteps);  // the same for all warps
    if (loads < 1) loads = 1;
  }

  // Load `index` of tiles * loads.
  __device__ void read(int index, Load<T>& to) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int row = (first_tile + index / loads * tile_step) * kOutputs + lane / 4;
    const bool present = index < tiles * loads && row < rows;
    const int from = begin + index % loads * kSteps;
    const T* at = w + static_cast<int64_t>(row) * width;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = (from + i) * kDepth + lane % 4 * 8;
      if (!present || from + i >= end || k >= width) {
        to.w[i] = no_eights<T>();
      } else if (vectors) {
        to.w[i] = read_constant(at + k);
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e) to.w[i].v[e] = k + e < width ? at[k + e] : from_float<T>(0.0f);
      }
    }
  }
};

// What is asked for before x is known: two loads of the weight, and the bias of this thread's output in the
// first two tiles.
template <class T>
struct Ahead {
  Load<T> first, second;
  float bias[2];
  __device__ void start(const Share<T>& share, const Weight& weight) {
    share.read(0, first);
    share.read(1, second);
#pragma unroll
    for (int i = 0; i < 2; ++i) bias[i] = bias_of(share, weight, i);
  }
  // Of this thread's output in the block's tile `tile`: output thread % kOutputs.
  static __device__ float bias_of(const Share<T>& share, const Weight& weight, int tile) {
    const int output =
        (share.first_tile + tile * share.tile_step) * kOutputs + static_cast<int>(threadIdx.x) % kOutputs;
    return weight.bias != nullptr && tile < share.tiles && output < share.rows ? __ldg(weight.bias + output)
                                                                               : 0.0f;
  }
};

// Rows of x of the product's type, padded by zeros to a multiple of kDepth.
template <class T, bool kShared>
struct Rows {
  const T* data;
  int stride, count;
  __device__ Eights<T> read(int row, int k) const {
    if (row >= count) return no_eights<T>();
    const T* p = data + static_cast<int64_t>(row) * stride + k;
    if constexpr (kShared) return *reinterpret_cast<const Eights<T>*>(p);
    return read_shared_by_all(p);
  }
};

// Adds what one load gives to this warp's parts: for 16-bit elements sums[i] is what mma leaves of sequences
// 16 i to 16 i + 15 (mma.cuh), to be written later; for f32 they are added to `parts` in shared memory.
template <int kRowTiles, class T, bool kShared>
__device__ inline void multiply_load(const Load<T>& load, int depths, const Rows<T, kShared>& x, int k,
                                     float (&sums)[kRowTiles][4], float* parts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i >= depths) break;
      const uint32_t* w = reinterpret_cast<const uint32_t*>(&load.w[i]);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        if (m * kRows >= x.count) break;
        const Eights<T> low = x.read(m * kRows + g, k + i * kDepth + 8 * t);
        const Eights<T> high = x.read(m * kRows + g + 8, k + i * kDepth + 8 * t);
        const uint32_t *l = reinterpret_cast<const uint32_t*>(&low),
                       *h = reinterpret_cast<const uint32_t*>(&high);
        // A lane's eight neighbours of the width stand for the places that mma gives it in two products.
        multiply<T>(sums[m], {l[0], h[0], l[1], h[1]}, w[0], w[1]);
        multiply<T>(sums[m], {l[2], h[2], l[3], h[3]}, w[2], w[3]);
      }
    }
  } else {
#pragma unroll 1
    for (int row = 0; row < x.count; ++row) {
      float part = 0;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        if (i >= depths) break;
        const Eights<T> e = x.read(row, k + i * kDepth + 8 * t);
#pragma unroll
        for (int n = 0; n < 8; ++n) part = fmaf(load.w[i].v[n], e.v[n], part);
      }
      part += __shfl_xor_sync(0xffffffffu, part, 1);
      part += __shfl_xor_sync(0xffffffffu, part, 2);
      if (t == 0) parts[row * kOutputs + g] += part;
    }
  }
}

// The sums of 16-bit elements into parts (16 kRowTiles, kOutputs).
template <int kRowTiles>
__device__ inline void write_sums(const float (&sums)[kRowTiles][4], int count, float* parts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    if (m * kRows >= count) break;
    float2* low = reinterpret_cast<float2*>(parts + (m * kRows + g) * kOutputs + 2 * t);
    low[0] = make_float2(sums[m][0], sums[m][1]);
    low[8 * kOutputs / 2] = make_float2(sums[m][2], sums[m][3]);
  }
}

// Calls finish.write(sequence, output, sum + bias, early) once for each of the block's outputs, where early =
// finish.early(sequence, output) is read while the sum is under way. `parts` are part_floats(kRowTiles) in
// shared memory that nobody uses. `ahead` has been started with this share.
template <int kRowTiles, class T, bool kShared, class Finish>
__device__ inline void product(const Share<T>& share, const Weight& weight, const Rows<T, kShared>& x,
                               Ahead<T>& ahead, float* parts, const Finish& finish) {
  constexpr int kGroup = kRowTiles * kRows, kPart = kGroup * kOutputs;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  int buffer = 0;
#pragma unroll 1
  for (int first = 0; first < x.count; first += kGroup) {
    Rows<T, kShared> group = x;
    group.data += static_cast<int64_t>(first) * x.stride;
    group.count = min(x.count - first, kGroup);
    const int count = group.count * kOutputs;
    if (first > 0) ahead.start(share, weight);
    int item = 0;
#pragma unroll 1
    for (int tile = 0; tile < share.tiles; ++tile) {
      const int output = (share.first_tile + tile * share.tile_step) * kOutputs + thread % kOutputs;
      const bool own = thread < count && output < share.rows;
      const float early = own ? finish.early(first + thread / kOutputs, output) : 0.0f;
      float* const all_parts = parts + buffer * kWarps * kPart;
      float* const own_parts = all_parts + warp * kPart;
      buffer ^= 1;
      if constexpr (sizeof(T) == 4) {
        for (int i = thread % kWarp; i < kPart; i += kWarp) own_parts[i] = 0;
        __syncwarp();
      }
      float sums[kRowTiles][4] = {};
#pragma unroll 1
      for (int load = 0; load < share.loads; ++load, ++item) {
        const int depth = share.begin + load * kSteps;
        multiply_load(ahead.first, min(share.end - depth, kSteps), group, depth * kDepth, sums, own_parts);
        ahead.first = ahead.second;
        share.read(item + 2, ahead.second);
      }
      if constexpr (sizeof(T) == 2) write_sums(sums, group.count, own_parts);
      const float bias = ahead.bias[0];
      ahead.bias[0] = ahead.bias[1];
      ahead.bias[1] = ahead.bias_of(share, weight, tile + 2);
      __syncthreads();
      // The stride keeps each thread at the same output.
      for (int i = thread; i < count && output < share.rows; i += kThreads) {
        float total = bias;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) total += all_parts[w * kPart + i];
        const int s = first + i / kOutputs;
        finish.write(s, output, total, i == thread ? early : finish.early(s, output));
      }
    }
  }
}

}  // namespace longstride::cuda::decode
