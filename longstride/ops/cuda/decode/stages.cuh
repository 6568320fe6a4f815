// The stages of one decoding step. Every block of a grid runs a stage; between stages all blocks wait for
// each other, be it because a kernel ends or at a barrier.
//
//   prepare      embeddings of the present position, what it reads and where its own key goes
//   a layer:     qkv, attention, projection, up, down
//   logits, draw (and prepare the next position)
//
// Few sequences: a block norms and joins what its products read for itself (fused). Many: norm and join are
// stages of their own. Both ways are the same arithmetic.
//
// What a stage reads of weights can be asked for before the stage before it has ended: Ahead.
#pragma once

#include "longstride/ops/cuda/decode/attention.cuh"
#include "longstride/ops/cuda/decode/sampling.cuh"
#include "longstride/ops/cuda/layer_norm.cuh"

namespace longstride::cuda::decode {

enum class Stage {
  prepare,
  norm1,
  qkv,
  attention,
  join,
  projection,
  norm2,
  up,
  down,
  final_norm,
  logits,
  draw
};

// The sequences that products take at a time: all that fused stages are for, or many.
inline constexpr int kMostFused = kRows;
template <bool kFused>
inline constexpr int kRowTiles = kFused ? 1 : 4;

// Shared memory of a block; where stages are fused, rows of x follow it.
template <bool kFused>
union Room {
  float parts[part_floats(kRowTiles<kFused>)];
  PieceRoom piece;
  SamplingRoom sampling;
};

// f(x) = x sigmoid(1.702 x), as in activation.cu.
__device__ inline float activate(float x) {
  return __fmul_rn(x, __fdividef(1.0f, __fadd_rn(1.0f, exp2_fast(__fmul_rn(x, -2.4554669595930156f)))));
}

// ---- prepare ----

// Makes sequence s ready for its position, as one block; it rests if nothing is left.
__device__ inline void prepare(const Args& a, int s, const Sequence& sequence) {
  const int thread = static_cast<int>(threadIdx.x), position = sequence.position;
  const bool rests = sequence.left <= 0;
  for (int u = thread; u < a.store_count; u += kThreads) {
    Reading reading;
    OwnRows own;
    int count = 0;
    if (!rests) {
      reading = reading_of(a.stores[u], position);
      for_rows_of_key(a.stores[u], position, position + 1, [&](int32_t row) { own.row[count++] = row; });
    }
    for (; count <= kMaxTerms; ++count) own.row[count] = -1;
    a.readings[u * a.streams + s] = reading;
    a.own_rows[u * a.streams + s] = own;
  }
  const Embedding& e = a.embedding;
  const int at = e.before ? position : position - 1;  // -1: none
  for (int column = thread; column < a.width; column += kThreads) {
    float y = position == 0 ? e.start[column] : e.token[sequence.previous * a.width + column];
    int left = at;
    for (int axis = e.axis_count; axis-- > 0 && at >= 0;) {
      y += e.axes[axis][static_cast<int64_t>(left % e.extent[axis]) * a.width + column];
      left /= e.extent[axis];
    }
    a.x[static_cast<int64_t>(s) * a.width + column] = rests ? 0.0f : y;
  }
}

// ---- what products read ----

// A row of x normed, by one warp: y (stride) of T, zeros beyond the width.
template <class T>
__device__ inline void norm_row(const float* x, const Norm& norm, int width, T* y, int stride) {
  constexpr int kHeld = 8;  // groups of four that a lane holds, of rows up to 1,024
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool vectors = width % 4 == 0;
  const auto read = [&](int column) {
    float4 v = make_float4(0, 0, 0, 0);
    if (vectors) {
      if (column < width) v = __ldcg(reinterpret_cast<const float4*>(x + column));
    } else {
      if (column < width) v.x = __ldcg(x + column);
      if (column + 1 < width) v.y = __ldcg(x + column + 1);
      if (column + 2 < width) v.z = __ldcg(x + column + 2);
      if (column + 3 < width) v.w = __ldcg(x + column + 3);
    }
    return v;
  };
  const float shift = __ldcg(x);
  float4 held[kHeld];
  float sum = 0, squares = 0;
  const auto add = [&](float value, bool present) {
    const float from_shift = present ? __fsub_rn(value, shift) : 0.0f;
    sum = __fadd_rn(sum, from_shift);
    squares = __fmaf_rn(from_shift, from_shift, squares);
  };
  for (int begin = 0; begin < width; begin += kHeld * 4 * kWarp) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) held[i] = read(begin + 4 * (lane + kWarp * i));
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int column = begin + 4 * (lane + kWarp * i);
      add(held[i].x, column < width), add(held[i].y, column + 1 < width);
      add(held[i].z, column + 2 < width), add(held[i].w, column + 3 < width);
    }
  }
  const Moments m =
      moments_of(shift, warp_sum(sum), warp_sum(squares), static_cast<float>(width), norm.epsilon);
  for (int begin = 0; begin < stride; begin += kHeld * 4 * kWarp) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int column = begin + 4 * (lane + kWarp * i);
      if (column >= stride) break;
      const float4 v = width <= kHeld * 4 * kWarp ? held[i] : read(column);
      const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool present = column + j < width;
        const float y_j =
            present ? __fmaf_rn(normalised(values[j], m), norm.gain[column + j], norm.bias[column + j])
                    : 0.0f;
        y[column + j] = from_float<T>(y_j);
      }
    }
  }
}

// All rows normed into y (S, x_stride): by this block alone, or by all.
template <class T>
__device__ inline void norm_rows(const Args& a, const Norm& norm, T* y, int first, int step) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int s = first * kWarps + warp; s < a.streams; s += step * kWarps)
    norm_row(a.x + static_cast<int64_t>(s) * a.width, norm, a.width, y + static_cast<int64_t>(s) * a.x_stride,
             a.x_stride);
}

// All rows of what is attended to, into y (S, x_stride).
template <class T>
__device__ inline void join_rows(const Args& a, const Layer& layer, T* y, int first, int step) {
  const int count = a.streams * a.x_stride;
  for (int i = first * kThreads + static_cast<int>(threadIdx.x); i < count; i += step * kThreads) {
    const int s = i / a.x_stride, column = i % a.x_stride;
    y[i] = from_float<T>(column < a.width ? attended(a, layer, s, column) : 0.0f);
  }
}

// ---- what products write ----

template <class T>
struct WriteQkv {
  const Args& a;
  const Layer& layer;
  __device__ void operator()(int s, int output, float value) const {
    if (output < a.qk) {
      a.q[static_cast<int64_t>(s) * a.qk + output] = value;
      return;
    }
    const bool is_key = output < 2 * a.qk;
    const int width = is_key ? a.head_width : a.head_width_v, from = output - (is_key ? a.qk : 2 * a.qk);
    const Head head = a.heads[layer.heads_from + from / width];
    const OwnRows& own = a.own_rows[head.store * a.streams + s];
    for (int i = 0; i <= kMaxTerms; ++i) {
      const int row = __ldcg(&own.row[i]);
      if (row < 0) break;
      const int64_t at = (s * layer.rows + head.first_row + row) * width + from % width;
      if (is_key && a.wide_keys)
        static_cast<float*>(layer.keys)[at] = value;
      else
        static_cast<T*>(is_key ? layer.keys : layer.values)[at] = from_float<T>(value);
    }
  }
};

struct AddToStream {
  const Args& a;
  __device__ void operator()(int s, int output, float value) const {
    float* x = a.x + static_cast<int64_t>(s) * a.width + output;
    *x = __ldcg(x) + value;
  }
};

template <class T>
struct WriteHidden {
  const Args& a;
  __device__ void operator()(int s, int output, float value) const {
    static_cast<T*>(a.hidden)[static_cast<int64_t>(s) * a.hidden_stride + output] =
        from_float<T>(activate(value));
  }
};

struct WriteLogits {
  const Args& a;
  __device__ void operator()(int s, int output, float value) const {
    a.logits[s * kVocabulary + output] = value;
  }
};

// ---- the stages ----

// The weight that a stage multiplies by, or null.
__device__ inline const Weight* weight_of(const Args& a, Stage stage, const Layer& layer) {
  switch (stage) {
    case Stage::qkv:
      return &layer.qkv;
    case Stage::projection:
      return &layer.projection;
    case Stage::up:
      return &layer.up;
    case Stage::down:
      return &layer.down;
    case Stage::logits:
      return &a.output;
    default:
      return nullptr;
  }
}

// A product whose x every block has written to its own shared memory, or all blocks together to `of_all`.
template <bool kFused, class T, class Finish>
__device__ inline void product_of_rows(const Args& a, const Share<T>& share, const Weight& weight,
                                       const void* of_all, const T* own, Ahead<T>& ahead, float* parts,
                                       const Finish& finish) {
  if constexpr (kFused) {
    __syncthreads();
    product<kRowTiles<kFused>>(share, weight, Rows<T, true>{own, a.x_stride, a.streams}, ahead, parts,
                               finish);
  } else {
    product<kRowTiles<kFused>>(share, weight,
                               Rows<T, false>{static_cast<const T*>(of_all), a.x_stride, a.streams}, ahead,
                               parts, finish);
  }
}

// Runs `stage` of `layer` (of no meaning for the last three) as block `block` of `blocks`. `rows`: shared
// memory for (S, x_stride) where stages are fused. `ahead` has been started for stages with a weight.
template <Stage kStage, bool kFused, class T>
__device__ inline void run_stage(const Args& a, const Layer& layer, int block, int blocks, Room<kFused>& room,
                                 T* rows, Ahead<T>& ahead) {
  const Weight* const weight = weight_of(a, kStage, layer);
  if constexpr (kStage == Stage::prepare) {
    for (int s = block; s < a.streams; s += blocks) prepare(a, s, a.sequences[s]);
  } else if constexpr (kStage == Stage::norm1) {
    norm_rows(a, layer.norm1, static_cast<T*>(a.normed), block, blocks);
  } else if constexpr (kStage == Stage::norm2) {
    norm_rows(a, layer.norm2, static_cast<T*>(a.normed), block, blocks);
  } else if constexpr (kStage == Stage::final_norm) {
    norm_rows(a, a.final_norm, static_cast<T*>(a.normed), block, blocks);
  } else if constexpr (kStage == Stage::qkv) {
    const Share<T> share(*weight, block, blocks);
    if (kFused && share.tiles > 0) norm_rows(a, layer.norm1, rows, 0, 1);
    product_of_rows<kFused>(a, share, *weight, a.normed, rows, ahead, room.parts, WriteQkv<T>{a, layer});
  } else if constexpr (kStage == Stage::attention) {
    for (int index = block; index < Piece::count(a); index += blocks) {
      const Piece piece(a, index);
      const int store = a.heads[layer.heads_from + piece.head].store;
      __syncthreads();
      read_reading(a.readings[store * a.streams + piece.sequence], room.piece.reading);
      __syncthreads();
      attend<T>(a, layer, piece, room.piece);
    }
  } else if constexpr (kStage == Stage::join) {
    join_rows(a, layer, static_cast<T*>(a.attended), block, blocks);
  } else if constexpr (kStage == Stage::projection) {
    const Share<T> share(*weight, block, blocks);
    if (kFused && share.tiles > 0) join_rows(a, layer, rows, 0, 1);
    product_of_rows<kFused>(a, share, *weight, a.attended, rows, ahead, room.parts, AddToStream{a});
  } else if constexpr (kStage == Stage::up) {
    const Share<T> share(*weight, block, blocks);
    if (kFused && share.tiles > 0) norm_rows(a, layer.norm2, rows, 0, 1);
    product_of_rows<kFused>(a, share, *weight, a.normed, rows, ahead, room.parts, WriteHidden<T>{a});
  } else if constexpr (kStage == Stage::down) {
    product<kRowTiles<kFused>>(Share<T>(*weight, block, blocks), *weight,
                               Rows<T, false>{static_cast<const T*>(a.hidden), a.hidden_stride, a.streams},
                               ahead, room.parts, AddToStream{a});
  } else if constexpr (kStage == Stage::logits) {
    const Share<T> share(*weight, block, blocks);
    if (kFused && share.tiles > 0) norm_rows(a, a.final_norm, rows, 0, 1);
    product_of_rows<kFused>(a, share, *weight, a.normed, rows, ahead, room.parts, WriteLogits{a});
  } else {
    for (int s = block; s < a.streams; s += blocks) {
      Sequence sequence = a.sequences[s];
      if (sequence.left <= 0) continue;
      const int byte = draw(a.logits + s * kVocabulary, sequence, room.sampling);
      __syncthreads();  // all have read the sequence
      if (byte < 0 && threadIdx.x == 0) *a.fault = 1 + s;
      if (threadIdx.x == 0)
        a.out[static_cast<int64_t>(s) * a.out_stride + sequence.drawn] = static_cast<uint8_t>(byte);
      sequence.previous = static_cast<uint8_t>(byte);
      ++sequence.position, ++sequence.drawn, --sequence.left;
      if (threadIdx.x == 0) a.sequences[s] = sequence;
      prepare(a, s, sequence);
    }
  }
}

}  // namespace longstride::cuda::decode
