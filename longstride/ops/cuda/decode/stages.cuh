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
union alignas(16) Room {
  float parts[part_floats(kRowTiles<kFused>)];
  PieceRoom piece;
  SamplingRoom sampling;
};

// Where things stand in a block's shared memory, in bytes.
template <bool kFused>
struct Places {
  int64_t reading, norm, layers, heads, rows, bytes;
  LONGSTRIDE_HOST_DEVICE Places(const Args& a, int64_t element) {
    int64_t at = sizeof(Room<kFused>);
    const auto place = [&](int64_t size) {
      const int64_t from = at;
      at += (size + 15) / 16 * 16;
      return from;
    };
    reading = place(sizeof(ReadingCopy));
    norm = place(2 * a.width * static_cast<int64_t>(sizeof(float)));
    layers = place(kFused ? a.layer_count * static_cast<int64_t>(sizeof(Layer)) : 0);
    heads = place(kFused ? a.distinct_heads * static_cast<int64_t>(sizeof(Head)) : 0);
    rows = place(kFused ? a.streams * a.x_stride * element : 0);
    bytes = at;
  }
};

// A block of the grid, and its shared memory.
template <bool kFused, class T>
struct Block {
  int index, count;
  Room<kFused>& room;
  ReadingCopy& reading;
  float *gain, *bias;  // (d) of a norm
  T* rows;             // (S, x_stride) where stages are fused

  __device__ Block(const Args& a, unsigned char* shared)
      : index(static_cast<int>(blockIdx.x)),
        count(static_cast<int>(gridDim.x)),
        room(*reinterpret_cast<Room<kFused>*>(shared)),
        reading(*reinterpret_cast<ReadingCopy*>(shared + Places<kFused>(a, sizeof(T)).reading)),
        gain(reinterpret_cast<float*>(shared + Places<kFused>(a, sizeof(T)).norm)),
        bias(gain + a.width),
        rows(reinterpret_cast<T*>(shared + Places<kFused>(a, sizeof(T)).rows)) {}
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

// A row of x normed, by one warp: y (stride) of T, zeros beyond the width. gain and bias in shared memory.
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

// All rows normed into y (S, x_stride): by this block alone, or by all. The norm's gain and bias are in the
// block's shared memory.
template <bool kFused, class T>
__device__ inline void norm_rows(const Args& a, const Block<kFused, T>& block, float epsilon, T* y, int first,
                                 int step) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int s = first * kWarps + warp; s < a.streams; s += step * kWarps)
    norm_row(a.x + static_cast<int64_t>(s) * a.width, {block.gain, block.bias, epsilon}, a.width,
             y + static_cast<int64_t>(s) * a.x_stride, a.x_stride);
}

// All rows of what is attended to, into y (S, x_stride).
template <class T>
__device__ inline void join_rows(const Args& a, T* y, int first, int step) {
  const int count = a.streams * a.x_stride;
  for (int i = first * kThreads + static_cast<int>(threadIdx.x); i < count; i += step * kThreads) {
    const int s = i / a.x_stride, column = i % a.x_stride;
    y[i] = from_float<T>(column < a.width ? attended(a, s, column) : 0.0f);
  }
}

// ---- what products write ----

// Nothing to read early.
struct NothingEarly {
  __device__ float early(int, int) const { return 0.0f; }
};

template <class T>
struct WriteQkv : NothingEarly {
  const Args& a;
  const Layer& layer;
  const Head* heads;  // of the layer
  __device__ WriteQkv(const Args& args, const Layer& l, const Head* h) : a(args), layer(l), heads(h) {}
  __device__ void write(int s, int output, float value, float) const {
    if (output < a.qk) {
      a.q[static_cast<int64_t>(s) * a.qk + output] = value;
      return;
    }
    const bool is_key = output < 2 * a.qk;
    const int width = is_key ? a.head_width : a.head_width_v, from = output - (is_key ? a.qk : 2 * a.qk);
    const Head head = heads[from / width];
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
  __device__ float* place(int s, int output) const {
    return a.x + static_cast<int64_t>(s) * a.width + output;
  }
  __device__ float early(int s, int output) const { return __ldcg(place(s, output)); }
  __device__ void write(int s, int output, float value, float x) const { *place(s, output) = x + value; }
};

template <class T>
struct WriteHidden : NothingEarly {
  const Args& a;
  __device__ explicit WriteHidden(const Args& args) : a(args) {}
  __device__ void write(int s, int output, float value, float) const {
    static_cast<T*>(a.hidden)[static_cast<int64_t>(s) * a.hidden_stride + output] =
        from_float<T>(activate(value));
  }
};

struct WriteLogits : NothingEarly {
  const Args& a;
  __device__ explicit WriteLogits(const Args& args) : a(args) {}
  __device__ void write(int s, int output, float value, float) const {
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

// The norm whose gain and bias a stage needs, or null.
template <bool kFused>
__device__ inline const Norm* norm_of(const Args& a, Stage stage, const Layer& layer) {
  if (stage == Stage::norm1 || (kFused && stage == Stage::qkv)) return &layer.norm1;
  if (stage == Stage::norm2 || (kFused && stage == Stage::up)) return &layer.norm2;
  if (stage == Stage::final_norm || (kFused && stage == Stage::logits)) return &a.final_norm;
  return nullptr;
}

// What a stage can do before the stage before it has ended: ask for its weights and its norm. The block has
// to meet before it goes on.
template <Stage kStage, bool kFused, class T>
__device__ inline void begin_stage(const Args& a, const Layer& layer, const Block<kFused, T>& block,
                                   Ahead<T>& ahead) {
  if (const Weight* weight = weight_of(a, kStage, layer))
    ahead.start(Share<T>(*weight, block.index, block.count), *weight);
  if (const Norm* norm = norm_of<kFused>(a, kStage, layer))
    for (int i = static_cast<int>(threadIdx.x); i < a.width; i += kThreads) {
      block.gain[i] = __ldg(norm->gain + i);
      block.bias[i] = __ldg(norm->bias + i);
    }
}

// A product whose x every block has written to its own shared memory, or all blocks together to `of_all`.
template <bool kFused, class T, class Finish>
__device__ inline void product_of_rows(const Args& a, const Block<kFused, T>& block, const Share<T>& share,
                                       const Weight& weight, const void* of_all, Ahead<T>& ahead,
                                       const Finish& finish) {
  constexpr int kTiles = kRowTiles<kFused>;
  if constexpr (kFused) {
    __syncthreads();
    product<kTiles>(share, weight, Rows<T, true>{block.rows, a.x_stride, a.streams}, ahead, block.room.parts,
                    finish);
  } else {
    product<kTiles>(share, weight, Rows<T, false>{static_cast<const T*>(of_all), a.x_stride, a.streams},
                    ahead, block.room.parts, finish);
  }
}

// Runs a stage of `layer` (of no meaning for the last three), whose heads are `heads`, as one block. It has
// been begun.
template <Stage kStage, bool kFused, class T>
__device__ inline void run_stage(const Args& a, const Layer& layer, const Head* heads,
                                 const Block<kFused, T>& block, Ahead<T>& ahead) {
  const int index = block.index, blocks = block.count;
  if constexpr (kStage == Stage::prepare) {
    for (int s = index; s < a.streams; s += blocks) prepare(a, s, a.sequences[s]);
  } else if constexpr (kStage == Stage::norm1 || kStage == Stage::norm2 || kStage == Stage::final_norm) {
    norm_rows(a, block, norm_of<kFused>(a, kStage, layer)->epsilon, static_cast<T*>(a.normed), index, blocks);
  } else if constexpr (kStage == Stage::attention) {
    for (int i = index; i < Piece::count(a); i += blocks) {
      const Piece piece(a, i);
      const Head head = heads[piece.head];
      __syncthreads();
      if (block.reading.store != head.store || block.reading.sequence != piece.sequence) {
        __syncthreads();  // all have seen that it is another's
        copy_reading(a, head.store, piece.sequence, block.reading);
        __syncthreads();
      }
      attend<T>(a, layer, head, piece, block.reading.reading, block.room.piece);
    }
  } else if constexpr (kStage == Stage::join) {
    join_rows(a, static_cast<T*>(a.attended), index, blocks);
  } else if constexpr (kStage == Stage::draw) {
    for (int s = index; s < a.streams; s += blocks) {
      Sequence sequence = a.sequences[s];
      if (sequence.left <= 0) continue;
      const int byte = draw(a.logits + s * kVocabulary, sequence, block.room.sampling);
      __syncthreads();  // all have read the sequence
      if (byte < 0 && threadIdx.x == 0) *a.fault = 1 + s;
      if (threadIdx.x == 0)
        a.out[static_cast<int64_t>(s) * a.out_stride + sequence.drawn] = static_cast<uint8_t>(byte);
      sequence.previous = static_cast<uint8_t>(byte);
      ++sequence.position, ++sequence.drawn, --sequence.left;
      if (threadIdx.x == 0) a.sequences[s] = sequence;
      prepare(a, s, sequence);
    }
  } else {
    const Weight& weight = *weight_of(a, kStage, layer);
    const Share<T> share(weight, index, blocks);
    if (const Norm* norm = norm_of<kFused>(a, kStage, layer); kFused && norm != nullptr && share.tiles > 0)
      norm_rows(a, block, norm->epsilon, block.rows, 0, 1);
    if (kFused && kStage == Stage::projection && share.tiles > 0) join_rows(a, block.rows, 0, 1);
    if constexpr (kStage == Stage::qkv)
      product_of_rows(a, block, share, weight, a.normed, ahead, WriteQkv<T>(a, layer, heads));
    else if constexpr (kStage == Stage::projection)
      product_of_rows(a, block, share, weight, a.attended, ahead, AddToStream{a});
    else if constexpr (kStage == Stage::up)
      product_of_rows(a, block, share, weight, a.normed, ahead, WriteHidden<T>(a));
    else if constexpr (kStage == Stage::logits)
      product_of_rows(a, block, share, weight, a.normed, ahead, WriteLogits(a));
    else
      product<kRowTiles<kFused>>(share, weight,
                                 Rows<T, false>{static_cast<const T*>(a.hidden), a.hidden_stride, a.streams},
                                 ahead, block.room.parts, AddToStream{a});
  }
}

}  // namespace longstride::cuda::decode
