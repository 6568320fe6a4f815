// y (S, rows) = x (S, width) w^T for few rows of x: the time is that of reading w once.
//
// A block takes tiles of eight outputs; its warps share the width, and their parts are added in order. On
// 16-bit elements a warp multiplies by mma.m16n8k16 with sixteen sequences as rows, so that one sequence
// costs what sixteen do. The sum of an output is the same bits for any number of sequences and blocks.
//
// What a block reads of w does not depend on x, so its first two loads may be under way before x is known.
#pragma once

#include "longstride/decode/cuda/args.h"
#include "longstride/ops/cuda/mma.cuh"

namespace longstride::cuda::decode {

inline constexpr int kOutputs = 8;  // of a tile
inline constexpr int kDepth = 32;   // of the width, at a time: four lanes with eight elements each
inline constexpr int kSteps = 4;    // depths that a warp loads at a time
inline constexpr int kRows = 16;    // sequences of an mma
inline constexpr int kPart = kRows * kOutputs;
inline constexpr int kPartFloats = 2 * kWarps * kPart;  // of shared memory: two tiles' parts

// Eight elements as they lie in memory, as whole registers.
template <class T>
struct Eights {
  static constexpr int kWords = static_cast<int>(sizeof(T) * 8 / 16);
  uint4 raw[kWords];

  // Element i, for an i that the compiler knows.
  __device__ float operator[](int i) const {
    const uint32_t* words = reinterpret_cast<const uint32_t*>(raw);
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
    const uint32_t word = words[i / 2];
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
      return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
    else
      return __half2float(__ushort_as_half(static_cast<unsigned short>(i % 2 == 0 ? word : word >> 16)));
  }
};

template <class T>
__device__ inline Eights<T> no_eights() {
  Eights<T> e;
#pragma unroll
  for (uint4& raw : e.raw) raw = make_uint4(0, 0, 0, 0);
  return e;
}

// Of elements one by one.
template <class T>
__device__ inline Eights<T> eights_of(const float (&v)[8]) {
  Eights<T> e;
  uint32_t* words = reinterpret_cast<uint32_t*>(e.raw);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (sizeof(T) == 4)
      words[i] = __float_as_uint(v[i]);
    else if (i % 2 == 0)
      words[i / 2] = pack<T>(v[i], v[i + 1]);
  }
  return e;
}

// Elements that no one writes while a kernel runs.
template <class T>
__device__ inline Eights<T> read_constant(const T* p) {
  Eights<T> e;
#pragma unroll
  for (int i = 0; i < Eights<T>::kWords; ++i)
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(e.raw[i].x), "=r"(e.raw[i].y), "=r"(e.raw[i].z), "=r"(e.raw[i].w)
                 : "l"(reinterpret_cast<const uint4*>(p) + i));
  return e;
}

// Elements that other blocks may have written in this kernel: past the first-level cache.
template <class T>
__device__ inline Eights<T> read_shared_by_all(const T* p) {
  Eights<T> e;
#pragma unroll
  for (int i = 0; i < Eights<T>::kWords; ++i) e.raw[i] = __ldcg(reinterpret_cast<const uint4*>(p) + i);
  return e;
}

// Elements [k, k + 8) of a row whose address does not suit vectors, zeros beyond its width.
template <class T>
__device__ __noinline__ Eights<T> read_one_by_one(const T* row, int k, int width) {
  float v[8];
#pragma unroll
  for (int e = 0; e < 8; ++e) v[e] = k + e < width ? to_float(row[k + e]) : 0.0f;
  return eights_of<T>(v);
}

// Eight elements of a cached row from `first` on; beyond its width anything where `vectors`, else zeros.
template <class T>
__device__ inline Eights<T> read_cached(const T* row, int first, int width, bool vectors) {
  if (vectors) return read_shared_by_all(row + (first < width ? first : 0));
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[i] = 0;
    if (first + i >= width) continue;
    if constexpr (sizeof(T) == 2) {
      const unsigned short raw = __ldcg(reinterpret_cast<const unsigned short*>(row) + first + i);
      v[i] = to_float(*reinterpret_cast<const T*>(&raw));
    } else {
      v[i] = __ldcg(row + first + i);
    }
  }
  return eights_of<T>(v);
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
  int rows, width, first_tile, tile_step, all_tiles;
  int begin, end, loads;  // depths [begin, end)
  bool vectors;

  __device__ Share(const Weight& weight, int block, int blocks)
      : w(static_cast<const T*>(weight.w)),
        rows(weight.rows),
        width(weight.width),
        first_tile(block),
        tile_step(blocks),
        all_tiles((rows + kOutputs - 1) / kOutputs),
        vectors(weight.vectors) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, depths = (width + kDepth - 1) / kDepth;
    begin = depths * warp / kWarps, end = depths * (warp + 1) / kWarps;
    loads = max(1, (depths + kWarps * kSteps - 1) / (kWarps * kSteps));  // the same for all warps
  }
  // The block's tile number `index`; whether there is one.
  __device__ int tile(int index) const { return first_tile + index * tile_step; }
  __device__ bool has(int index) const { return tile(index) < all_tiles; }

  // Load `load` of the block's tile number `index`; depths beyond this warp's, and a tile that is not there,
  // leave what is in their place. Outputs beyond the last are the last.
  __device__ void read(int index, int load, Load<T>& to) const {
    if (!has(index)) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int row = min(tile(index) * kOutputs + lane / 4, rows - 1), from = begin + load * kSteps;
    const int k = from * kDepth + lane % 4 * 8;
    const T* at = w + static_cast<int64_t>(row) * width + k;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (from + i >= end) break;
      to.w[i] = vectors ? read_constant(at + i * kDepth) : read_one_by_one(at - k, k + i * kDepth, width);
    }
  }
};

// Asks for the tiles of this block, so that they are in the second-level cache when they are read.
template <class T>
__device__ inline void prefetch_tiles(const Weight& weight, int block, int blocks) {
  constexpr int kLine = 128;
  const int64_t tile = static_cast<int64_t>(kOutputs) * weight.width * static_cast<int64_t>(sizeof(T));
  const int64_t bytes = static_cast<int64_t>(weight.rows) * weight.width * static_cast<int64_t>(sizeof(T));
  for (int64_t begin = block * tile; begin < bytes; begin += blocks * tile)
    for (int64_t at = static_cast<int>(threadIdx.x) * kLine; at < tile && begin + at < bytes;
         at += kThreads * kLine)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(weight.w) + begin + at));
}

// What is asked for before x is known: two loads of the weight, and the bias of this thread's output in the
// first two tiles.
template <class T>
struct Ahead {
  Load<T> first, second;
  float bias[2];
  int tile, load;  // of the next load to ask for

  __device__ void start(const Share<T>& share, const Weight& weight) {
    tile = load = 0;
    ask(share, first);
    ask(share, second);
#pragma unroll
    for (int i = 0; i < 2; ++i) bias[i] = bias_of(share, weight, i);
  }
  __device__ void ask(const Share<T>& share, Load<T>& to) {
    share.read(tile, load, to);
    if (++load == share.loads) load = 0, ++tile;
  }
  // Of this thread's output in the block's tile number `index`: output thread % kOutputs.
  static __device__ float bias_of(const Share<T>& share, const Weight& weight, int index) {
    const int output = share.tile(index) * kOutputs + static_cast<int>(threadIdx.x) % kOutputs;
    return weight.bias != nullptr && output < share.rows ? __ldg(weight.bias + output) : 0.0f;
  }
};

// Rows of x of the product's type, padded by zeros to a multiple of kDepth.
template <class T, bool kShared>
struct Rows {
  const T* data;
  int stride, count;
  // Eight elements of a lane from p on.
  static __device__ Eights<T> read(const T* p) {
    if constexpr (kShared) {
      Eights<T> e;
#pragma unroll
      for (int i = 0; i < Eights<T>::kWords; ++i) e.raw[i] = reinterpret_cast<const uint4*>(p)[i];
      return e;
    } else {
      return read_shared_by_all(p);
    }
  }
  // Where this lane reads row `row` at the depth that begins at k; rows beyond the last are the last.
  __device__ const T* at(int row, int k) const {
    return data + static_cast<int64_t>(min(row, count - 1)) * stride + k +
           static_cast<int>(threadIdx.x) % 4 * 8;
  }
};

// Adds what one load gives to this warp's parts: for 16-bit elements to `sum`, as mma leaves it (mma.cuh), to
// be written later; for f32 to `parts` in shared memory.
template <class T, bool kShared>
__device__ inline void multiply_load(const Load<T>& load, int depths, const Rows<T, kShared>& x, int k,
                                     float (&sum)[4], float* parts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  if constexpr (sizeof(T) == 2) {
    Eights<T> low[kSteps], high[kSteps];
    const T *low_row = x.at(g, k), *high_row = x.at(g + 8, k);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i >= depths) break;
      low[i] = x.read(low_row + i * kDepth);
      high[i] = x.read(high_row + i * kDepth);
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i >= depths) break;
      // A lane's eight neighbours of the width stand for the places that mma gives it in two products.
      const uint4 w = load.w[i].raw[0], l = low[i].raw[0], h = high[i].raw[0];
      multiply<T>(sum, {l.x, h.x, l.y, h.y}, w.x, w.y);
      multiply<T>(sum, {l.z, h.z, l.w, h.w}, w.z, w.w);
    }
  } else {
#pragma unroll 1
    for (int row = 0; row < x.count; ++row) {
      float part = 0;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        if (i >= depths) break;
        const Eights<T> e = x.read(x.at(row, k + i * kDepth));
#pragma unroll
        for (int n = 0; n < 8; ++n) part = fmaf(load.w[i][n], e[n], part);
      }
      part += __shfl_xor_sync(0xffffffffu, part, 1);
      part += __shfl_xor_sync(0xffffffffu, part, 2);
      if (t == 0) parts[row * kOutputs + g] += part;
    }
  }
}

// Calls finish.write(sequence, output, sum + bias, early) once for each of the block's outputs and the kRows
// sequences from `first` on, where early = finish.early(sequence, output) is read while the sum is under way.
// `parts` are kPartFloats in shared memory that nobody uses. `ahead` has been started with this share.
template <class T, bool kShared, class Finish>
__device__ inline void product(const Share<T>& share, const Weight& weight, Rows<T, kShared> x, int first,
                               Ahead<T>& ahead, float* parts, const Finish& finish) {
  static_assert(kPart <= kThreads, "a thread an output");
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  x.data += static_cast<int64_t>(first) * x.stride;
  x.count = min(x.count - first, kRows);
  int buffer = 0;
#pragma unroll 1
  for (int tile = 0; share.has(tile); ++tile) {
    const int output = share.tile(tile) * kOutputs + thread % kOutputs, s = first + thread / kOutputs;
    const bool own = thread < x.count * kOutputs && output < share.rows;
    const float early = own ? finish.early(s, output) : 0.0f;
    float* const all_parts = parts + buffer * kWarps * kPart;
    float* const own_parts = all_parts + warp * kPart;
    buffer ^= 1;
    if constexpr (sizeof(T) == 4) {
      for (int i = lane; i < kPart; i += kWarp) own_parts[i] = 0;
      __syncwarp();
    }
    float sum[4] = {};
#pragma unroll 1
    for (int load = 0; load < share.loads; ++load) {
      const int depth = share.begin + load * kSteps;
      multiply_load(ahead.first, min(share.end - depth, kSteps), x, depth * kDepth, sum, own_parts);
      ahead.first = ahead.second;
      ahead.ask(share, ahead.second);
    }
    if constexpr (sizeof(T) == 2) {
      float2* low = reinterpret_cast<float2*>(own_parts + lane / 4 * kOutputs + 2 * (lane % 4));
      low[0] = make_float2(sum[0], sum[1]);
      low[8 * kOutputs / 2] = make_float2(sum[2], sum[3]);
    }
    const float bias = ahead.bias[0];
    ahead.bias[0] = ahead.bias[1];
    ahead.bias[1] = ahead.bias_of(share, weight, tile + 2);
    __syncthreads();
    if (!own) continue;
    float total = bias;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += all_parts[w * kPart + thread];
    finish.write(s, output, total, early);
  }
}

}  // namespace longstride::cuda::decode
