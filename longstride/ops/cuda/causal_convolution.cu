// The causal convolution (contract: longstride/ops/causal_convolution.h). A thread walks a stretch of rows of
// eight channels and keeps the rows that it will need again in registers, packed as they are stored, so that
// memory is read once. The backward goes by the row of x: it reads the rows of dy that this row had a part
// in, so that the gradient may take the row's place. Bound by memory. Scratch in the backward: the sums of dw
// of each block.
#include <algorithm>

#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/cuda/arithmetic.cuh"
#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/cuda/layer_norm.cuh"

namespace longstride::cuda {

namespace {

constexpr int kTaps = kConvolutionTaps;
constexpr int kBefore = kTaps - 1;  // rows of the window besides its newest

// How rows and channels are shared out: it depends on nothing but the shape, and sums of dw do on it.
struct Shares {
  int lanes, groups;  // threads of a block: eights of channels, and stretches of rows
  int64_t rows_each;  // rows of a stretch
  int64_t row_blocks, column_blocks;
};

Shares shares_of(int64_t rows, int64_t width) {
  constexpr int64_t kBlocks = 264;  // wanted: two for each multiprocessor of an H100, all at once
  Shares s{};
  const int64_t eights = ceil_div(width, 8);
  s.lanes = static_cast<int>(std::min<int64_t>(eights, kWarp));
  s.groups = kThreads / s.lanes;
  s.column_blocks = ceil_div(eights, s.lanes);
  s.rows_each = std::max<int64_t>(8, ceil_div(rows * s.column_blocks, kBlocks * s.groups));
  s.row_blocks = ceil_div(rows, s.rows_each * s.groups);
  return s;
}

template <class T>
struct Rows {
  const T* from;  // x, or dy
  T* to;          // y, or x and its gradient
  const float* w;
  float* partial;  // (row blocks, taps, width)
  int64_t rows, rows_each;
  int width, positions;
  bool vectors;
};

// Eight elements as memory holds them: half the registers where they have 16 bits.
template <class T>
struct Packed {
  static constexpr int kWords = 2 * sizeof(T);
  uint32_t word[kWords] = {};
};

template <class T>
__device__ inline Packed<T> read_packed(const T* p, int n, bool vectors) {
  Packed<T> packed;
  if (vectors && n == 8) {
#pragma unroll
    for (int i = 0; i < Packed<T>::kWords / 4; ++i) {
      const uint4 raw = reinterpret_cast<const uint4*>(p)[i];
      packed.word[4 * i] = raw.x, packed.word[4 * i + 1] = raw.y;
      packed.word[4 * i + 2] = raw.z, packed.word[4 * i + 3] = raw.w;
    }
    return packed;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i >= n) continue;
    if constexpr (sizeof(T) == 2)
      packed.word[i / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(p)[i]) << (i % 2 * 16);
    else
      packed.word[i] = __float_as_uint(p[i]);
  }
  return packed;
}

template <class T>
__device__ inline float element(const Packed<T>& packed, int i) {
  if constexpr (sizeof(T) == 2) {
    const uint16_t bits = static_cast<uint16_t>(packed.word[i / 2] >> (i % 2 * 16));
    return to_float(*reinterpret_cast<const T*>(&bits));
  } else {
    return __uint_as_float(packed.word[i]);
  }
}

// The thread's eight channels and its stretch of rows; `end` is not above `begin` if there is none.
struct Place {
  int64_t begin, end;
  int column, n;
};

template <class T>
__device__ inline Place place_of(const Rows<T>& t) {
  const int column = 8 * static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y) * t.rows_each;
  const int64_t end = begin + t.rows_each < t.rows ? begin + t.rows_each : t.rows;
  return {begin, column < t.width ? end : begin, column, of_eight(column, t.width)};
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Rows<T> t) {
  constexpr int kRows = 8 / sizeof(T);  // at a time
  static_assert(kRows == 2 || kRows == 4);
  const Place at = place_of(t);
  if (at.begin >= at.end) return;
  const T* const x = t.from + at.column;
  T* const y = t.to + at.column;
  Eight w[kTaps];
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
    w[tap] = read8(t.w + static_cast<int64_t>(tap) * t.width + at.column, at.n, t.vectors);
  // Rows begin - 3 ... begin - 1, then those at hand.
  Packed<T> window[kBefore + kRows];
#pragma unroll
  for (int i = 0; i < kBefore; ++i)
    if (at.begin - kBefore + i >= 0)
      window[i] = read_packed(x + (at.begin - kBefore + i) * t.width, at.n, t.vectors);
  int position = static_cast<int>(at.begin % t.positions);
  for (int64_t row = at.begin; row < at.end; row += kRows) {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (row + i < at.end) window[kBefore + i] = read_packed(x + (row + i) * t.width, at.n, t.vectors);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (row + i >= at.end) break;
      Eight sum;
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const float own = element(window[kBefore + i], c);
        sum.v[c] = with_own_tap(own, w[0].v[c]);
      }
#pragma unroll
      for (int tap = 1; tap < kTaps; ++tap) {
        if (tap > position) continue;
#pragma unroll
        for (int c = 0; c < 8; ++c)
          sum.v[c] = __fmaf_rn(w[tap].v[c], element(window[kBefore + i - tap], c), sum.v[c]);
      }
      write8(y + (row + i) * t.width, sum, at.n, t.vectors);
      position = position + 1 == t.positions ? 0 : position + 1;
    }
#pragma unroll
    for (int i = 0; i < kBefore; ++i) window[i] = window[kRows + i];
  }
}

// The sums of the block's stretches, in order.
template <class T>
__device__ inline void write_sums(const Rows<T>& t, const Eight (&dw)[kTaps]) {
  __shared__ float sums[kThreads][8];
  const int threads = static_cast<int>(blockDim.x * blockDim.y), columns = static_cast<int>(8 * blockDim.x);
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int first = static_cast<int>(blockIdx.y) * columns;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    __syncthreads();
#pragma unroll
    for (int c = 0; c < 8; ++c) sums[thread][c] = dw[tap].v[c];
    __syncthreads();
    for (int i = thread; i < columns && first + i < t.width; i += threads) {
      float sum = 0;
      for (int group = 0; group < static_cast<int>(blockDim.y); ++group)
        sum += sums[group * static_cast<int>(blockDim.x) + i / 8][i % 8];
      t.partial[(static_cast<int64_t>(blockIdx.x) * kTaps + tap) * t.width + first + i] = sum;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) backward_kernel(Rows<T> t) {
  constexpr int kRows = 4 / sizeof(T);  // at a time
  const Place at = place_of(t);
  Eight w[kTaps] = {}, dw[kTaps] = {};
  if (at.begin < at.end) {
    const T* const dy = t.from + at.column;
    T* const x = t.to + at.column;
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap)
      w[tap] = read8(t.w + static_cast<int64_t>(tap) * t.width + at.column, at.n, t.vectors);
    // Rows of dy: the one at hand and those after it.
    Packed<T> window[kBefore + kRows];
#pragma unroll
    for (int i = 0; i < kBefore; ++i)
      if (at.begin + i < t.rows) window[i] = read_packed(dy + (at.begin + i) * t.width, at.n, t.vectors);
    int position = static_cast<int>(at.begin % t.positions);
    for (int64_t row = at.begin; row < at.end; row += kRows) {
      Packed<T> own[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (row + i < at.end) own[i] = read_packed(x + (row + i) * t.width, at.n, t.vectors);
        if (row + i < at.end && row + i + kBefore < t.rows)
          window[kBefore + i] = read_packed(dy + (row + i + kBefore) * t.width, at.n, t.vectors);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (row + i >= at.end) break;
        Eight sum;
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          const float gradient = element(window[i], c);
          sum.v[c] = __fmaf_rn(w[0].v[c], gradient, gradient);
          dw[0].v[c] = __fmaf_rn(element(own[i], c), gradient, dw[0].v[c]);
        }
#pragma unroll
        for (int tap = 1; tap < kTaps; ++tap) {
          if (position + tap >= t.positions) continue;
#pragma unroll
          for (int c = 0; c < 8; ++c) {
            const float gradient = element(window[i + tap], c);
            sum.v[c] = __fmaf_rn(w[tap].v[c], gradient, sum.v[c]);
            dw[tap].v[c] = __fmaf_rn(element(own[i], c), gradient, dw[tap].v[c]);
          }
        }
        write8(x + (row + i) * t.width, sum, at.n, t.vectors);
        position = position + 1 == t.positions ? 0 : position + 1;
      }
#pragma unroll
      for (int i = 0; i < kBefore; ++i) window[i] = window[kRows + i];
    }
  }
  write_sums(t, dw);
}

// The kernel's arguments and its launch.
template <class T>
struct Launch {
  Rows<T> t{};
  dim3 grid, threads;

  Launch(const Shares& s, const Tensor& from, const Tensor& w, int64_t positions, const Tensor& to)
      : grid(static_cast<unsigned>(s.row_blocks), static_cast<unsigned>(s.column_blocks)),
        threads(static_cast<unsigned>(s.lanes), static_cast<unsigned>(s.groups)) {
    t.from = data_of<T>(from), t.to = data_of<T>(to), t.w = data_of<float>(w);
    t.rows = to.shape[0], t.rows_each = s.rows_each;
    t.width = static_cast<int>(to.shape[1]), t.positions = static_cast<int>(positions);
    t.vectors = t.width % 8 == 0 && vectors_suit(t.from, t.to, t.w);
  }
};

}  // namespace

template <>
void compute(const OpContext&, const CausalConvolutionForward& t) {
  if (t.x.count() == 0) return;
  with_float_type(t.x.dtype, [&](auto element) {
    using T = decltype(element);
    const Launch<T> launch(shares_of(t.x.shape[0], t.x.shape[1]), t.x, t.w, t.positions, t.y);
    forward_kernel<T><<<launch.grid, launch.threads, 0, current()>>>(launch.t);
  });
  check_launch(t.name());
}

template <>
void compute(const OpContext& context, const CausalConvolutionBackward& t) {
  if (t.x.count() == 0) return;
  const int64_t width = t.x.shape[1];
  const Shares shares = shares_of(t.x.shape[0], width);
  Arena::Scope scope(*context.scratch);
  float* const partial =
      data_of<float>(context.scratch->allocate(DType::f32, {shares.row_blocks, kTaps, width}));
  if (context.scratch->is_measuring()) return;
  with_float_type(t.x.dtype, [&](auto element) {
    using T = decltype(element);
    Launch<T> launch(shares, t.dy, t.w, t.positions, t.x);
    launch.t.partial = partial;
    backward_kernel<T><<<launch.grid, launch.threads, 0, current()>>>(launch.t);
  });
  static_assert(kTaps == 4);  // two halves of two taps
  float* const dw = data_of<float>(t.dw);
  add_partial_sums(partial, shares.row_blocks, 2 * width, dw, dw + 2 * width);
  check_launch(t.name());
}

}  // namespace longstride::cuda
