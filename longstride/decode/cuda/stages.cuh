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

#include "longstride/decode/cuda/attention.cuh"
#include "longstride/decode/cuda/convolution.cuh"
#include "longstride/decode/cuda/sampling.cuh"
#include "longstride/decode/cuda/writes.cuh"

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

// The most sequences for which stages are fused: those that a product takes at a time.
inline constexpr int kMostFused = kRows;

// Shared memory of a block for products and for drawing; other things follow it.
union alignas(16) Room {
  float parts[kPartFloats];
  SamplingRoom sampling;
};

// Where things stand in a block's shared memory, in bytes.
template <bool kFused>
struct Places {
  int64_t pieces, norm, layers, heads, own_rows, rows, bytes;
  LONGSTRIDE_HOST_DEVICE Places(const Args& a, int64_t element) {
    int64_t at = sizeof(Room);
    const auto place = [&](int64_t size) {
      const int64_t from = at;
      at += (size + 15) / 16 * 16;
      return from;
    };
    pieces =
        place((kFused ? 1 : kWarps) * kParts * (2 + a.head_width_v) * static_cast<int64_t>(sizeof(float)));
    norm = place(2 * a.width * static_cast<int64_t>(sizeof(float)));
    layers = place(kFused ? a.layer_count * static_cast<int64_t>(sizeof(Layer)) : 0);
    heads = place(kFused ? a.distinct_heads * static_cast<int64_t>(sizeof(Head)) : 0);
    own_rows = place(kFused ? a.store_count * a.streams * static_cast<int64_t>(sizeof(OwnRows)) : 0);
    rows = place(kFused ? a.streams * a.x_stride * element : 0);
    if (kFused && a.convolves) place(floats_of_before(a) * static_cast<int64_t>(sizeof(float)));
    bytes = at;
  }
};

// A block of the grid, and its shared memory.
template <bool kFused, class T>
struct Block {
  int index, count;  // of the grid's first axis
  Room& room;
  float* pieces;       // (kParts, 2 + Dv), for each warp where stages are not fused
  float *gain, *bias;  // (d) of a norm
  T* rows;             // (S, x_stride) where stages are fused; before_of() follows
  OwnRows* own_rows;   // (stores, S), in shared memory where stages are fused

  __device__ Block(const Args& a, unsigned char* shared)
      : index(static_cast<int>(blockIdx.x)),
        count(static_cast<int>(gridDim.x)),
        room(*reinterpret_cast<Room*>(shared)) {
    const Places<kFused> places(a, sizeof(T));
    pieces = reinterpret_cast<float*>(shared + places.pieces);
    gain = reinterpret_cast<float*>(shared + places.norm), bias = gain + a.width;
    rows = reinterpret_cast<T*>(shared + places.rows);
    own_rows = kFused ? reinterpret_cast<OwnRows*>(shared + places.own_rows) : a.own_rows;
  }

  // Where stages are fused: own_rows of the present position, after which the block has to meet.
  __device__ void copy_own_rows(const Args& a) const {
    constexpr int kWords = static_cast<int>(sizeof(OwnRows) / 4);
    const int32_t* from = reinterpret_cast<const int32_t*>(a.own_rows);
    for (int i = static_cast<int>(threadIdx.x); i < a.store_count * a.streams * kWords; i += kThreads)
      reinterpret_cast<int32_t*>(own_rows)[i] = __ldcg(from + i);
  }
};

// ---- prepare ----

// The runs of a reading, if it is simple, and its pieces.
__device__ inline RowRuns runs_of(const Reading& reading, int most_pieces) {
  RowRuns runs{};
  runs.own = -1;
  runs.candidates = reading.candidates;
  runs.pieces = pieces_of(reading.candidates, most_pieces);
  runs.length = runs.pieces > 0 ? (reading.candidates + runs.pieces - 1) / runs.pieces : 0;
  runs.simple = 1;
  int found = 0;
  for (int t = 0; t < reading.term_count; ++t) {
    const TermReading& r = reading.terms[t];
    if (r.count == 0) continue;
    const bool by_key = r.row_step == 0;
    if (r.may_repeat || found == 2 || (by_key && r.run > 1)) {
      runs.simple = 0;
      break;
    }
    if (found == 0) runs.count = r.count;
    // Keys of a term ascend, and none is later than the position.
    if (r.key_at(r.count - 1) == reading.query) runs.own = (found == 0 ? 0 : runs.count) + r.count - 1;
    runs.row[found] = by_key ? r.key : r.row;
    runs.step[found] = by_key ? r.key_step : r.row_step;
    runs.ring[found] = by_key ? 0 : r.ring;
    ++found;
  }
  return runs;
}

// Makes sequence s ready for its position, as one block; it rests if nothing is left.
__device__ __noinline__ void prepare(const Args& a, int s, const Sequence& sequence) {
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
    a.row_runs[u * a.streams + s] = runs_of(reading, a.most_pieces);
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

// Columns [from, to) of a row of x normed, by one warp: y of T. All of the row is read. gain and bias in
// shared memory; from and to are multiples of four, or the width.
template <class T>
__device__ inline void norm_row(const float* x, const Norm& norm, int width, T* y, int from, int to) {
  constexpr int kHeld = 4;  // groups of four that a lane holds, of rows up to 512
  constexpr int kBlock = kHeld * 4 * kWarp;
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
  float sum[4] = {}, squares[4] = {};
  const auto add = [&](int i, float value, bool present) {
    const float from_shift = present ? __fsub_rn(value, shift) : 0.0f;
    sum[i] = __fadd_rn(sum[i], from_shift);
    squares[i] = __fmaf_rn(from_shift, from_shift, squares[i]);
  };
#pragma unroll 1
  for (int begin = 0; begin < width; begin += kBlock) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) held[i] = read(begin + 4 * (lane + kWarp * i));
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int column = begin + kBlock <= width ? 0 : begin + 4 * (lane + kWarp * i);
      add(0, held[i].x, column < width), add(1, held[i].y, column + 1 < width);
      add(2, held[i].z, column + 2 < width), add(3, held[i].w, column + 3 < width);
    }
  }
  const float all = warp_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  const float all_squares = warp_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const float correction = __fdividef(all, static_cast<float>(width));
  // The difference cannot be negative but for rounding. NaN must pass.
  const float variance = __fdividef(all_squares, static_cast<float>(width)) - correction * correction;
  const float mean = shift + correction, rstd = rsqrtf((variance < 0 ? 0.0f : variance) + norm.epsilon);
  const auto write = [&](int column, const float4& v) {
    const auto normed = [&](float value, float gain, float bias) {
      return __fmaf_rn((value - mean) * rstd, gain, bias);
    };
    if (vectors) {
      const float4 gain = *reinterpret_cast<const float4*>(norm.gain + column);
      const float4 bias = *reinterpret_cast<const float4*>(norm.bias + column);
      const float y0 = normed(v.x, gain.x, bias.x), y1 = normed(v.y, gain.y, bias.y);
      const float y2 = normed(v.z, gain.z, bias.z), y3 = normed(v.w, gain.w, bias.w);
      if constexpr (sizeof(T) == 4)
        *reinterpret_cast<float4*>(y + column) = make_float4(y0, y1, y2, y3);
      else
        *reinterpret_cast<uint2*>(y + column) = make_uint2(pack<T>(y0, y1), pack<T>(y2, y3));
      return;
    }
    const float values[4] = {v.x, v.y, v.z, v.w};
    for (int j = 0; j < 4 && column + j < width; ++j)
      y[column + j] = from_float<T>(normed(values[j], norm.gain[column + j], norm.bias[column + j]));
  };
#pragma unroll 1
  for (int begin = 0; begin < width; begin += kBlock) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int column = begin + 4 * (lane + kWarp * i);
      if (column >= from && column < to) write(column, width <= kBlock ? held[i] : read(column));
    }
  }
}

// The zeros beyond the width of rows that products read are written once, where the rows are allocated.

// All rows normed into y (S, x_stride): by this block alone (blocks = 1), or dealt to `blocks`. The norm's
// gain and bias are in the block's shared memory. One row is shared by the block's warps.
template <bool kFused, class T>
__device__ inline void norm_rows(const Args& a, const Block<kFused, T>& block, float epsilon, T* y, int index,
                                 int blocks) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const Norm norm{block.gain, block.bias, epsilon};
  if (a.streams == 1 && blocks == 1) {
    const int part = (a.width / 4 + kWarps) / kWarps * 4;
    return norm_row(a.x, norm, a.width, y, warp * part, min(a.width, (warp + 1) * part));
  }
  for (int s = index * kWarps + warp; s < a.streams; s += blocks * kWarps)
    norm_row(a.x + static_cast<int64_t>(s) * a.width, norm, a.width, y + static_cast<int64_t>(s) * a.x_stride,
             0, a.width);
}

// All rows of what is attended to, into y (S, x_stride), two columns a thread.
template <class T>
__device__ inline void join_rows(const Args& a, T* y, int index, int blocks) {
  const bool pairs = a.head_width_v % 2 == 0;
  const int step = pairs ? 2 : 1, count = a.streams * a.x_stride;
  for (int i = (index * kThreads + static_cast<int>(threadIdx.x)) * step; i < count;
       i += blocks * kThreads * step) {
    const int s = a.x_stride_divisor.quotient(i), column = i - s * a.x_stride;
    if (column >= a.width) continue;
    const float2 v = attended(a, s, column, pairs);
    y[i] = from_float<T>(v.x);
    if (pairs) y[i + 1] = from_float<T>(v.y);
  }
}

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
  if (const Norm* norm = norm_of<kFused>(a, kStage, layer)) {
    // On the way in the background, so that nobody waits for them yet.
    const uint32_t gain = shared_address(block.gain), bias = shared_address(block.bias);
    for (int i = static_cast<int>(threadIdx.x); i < a.width; i += kThreads) {
      copy4(gain + 4 * i, norm->gain + i, true);
      copy4(bias + 4 * i, norm->bias + i, true);
    }
    end_of_copies();
  }
}

// A product whose x every block has written to its own shared memory, or all blocks together to `of_all`.
// Where there are more sequences than a product takes, the grid's second axis has them by groups.
template <bool kFused, class T, class Finish>
__device__ inline void product_of_rows(const Args& a, const Block<kFused, T>& block, const Share<T>& share,
                                       const Weight& weight, const void* of_all, Ahead<T>& ahead,
                                       const Finish& finish) {
  if constexpr (kFused) {
    __syncthreads();
    product(share, weight, Rows<T, true>{block.rows, a.x_stride, a.streams}, 0, ahead, block.room.parts,
            finish);
  } else {
    product(share, weight, Rows<T, false>{static_cast<const T*>(of_all), a.x_stride, a.streams},
            static_cast<int>(blockIdx.y) * kRows, ahead, block.room.parts, finish);
  }
}

// Attention to the pieces that fall to this block: one after the other, or one a warp. Where keys are changed
// the first piece of a head, even an empty one, keeps the position's own.
template <bool kChanges, bool kFused, class T>
__device__ inline void attention_stage(const Args& a, const Layer& layer, const Head* heads,
                                       const Block<kFused, T>& block, const Piece& first_piece,
                                       Candidates& candidates) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int first = kFused ? block.index : block.index * kWarps + warp;
  const int step = kFused ? block.count : block.count * kWarps;
#pragma unroll 1
  for (int i = first; i < Piece::count(a); i += step) {
    const Piece piece = i == first ? first_piece : Piece(a, i);
    const Head head = heads[piece.head];
    if (candidates.store != head.store || candidates.sequence != piece.sequence)
      candidates.read<kChanges>(a, head.store, piece.sequence);
    if constexpr (kChanges) {
      // The last warp of a block has the fewest rows to read.
      if (piece.piece == 0 && (!kFused || warp == kWarps - 1))
        keep_key<T>(a, layer, head, piece.sequence, piece.head, candidates.position,
                    block.own_rows[head.store * a.streams + piece.sequence]);
    }
    Eight query;
    if constexpr (kFused) {
      if (!is_there(a, piece, candidates, thread)) continue;
      if constexpr (kChanges) query = changed_query(a, piece, candidates);
      if (i != first) __syncthreads();  // the last piece's parts have been read
      attend_to_part<T, kChanges>(a, layer, head, piece, candidates, warp, query, block.pieces);
      __syncthreads();
      join_parts(a, piece, block.pieces, thread, kThreads);
    } else {
      if (!is_there(a, piece, candidates, lane)) continue;
      if constexpr (kChanges) query = changed_query(a, piece, candidates);
      float* const own = block.pieces + warp * kParts * (2 + a.head_width_v);
#pragma unroll 1
      for (int part = 0; part < kParts; ++part)
        attend_to_part<T, kChanges>(a, layer, head, piece, candidates, part, query, own);
      __syncwarp();
      join_parts(a, piece, own, lane, kWarp);
      __syncwarp();
    }
  }
}

// Runs a stage of `layer` (of no meaning for the last three), whose heads are `heads`, as one block. It has
// been begun. kChanges: of qkv, that queries, keys or values are changed; of norm2 and up, that what is
// normed is convolved.
template <Stage kStage, bool kChanges, bool kFused, class T>
__device__ inline void run_stage(const Args& a, const Layer& layer, const Head* heads,
                                 const Block<kFused, T>& block, Ahead<T>& ahead) {
  const int index = block.index, blocks = block.count;
  if constexpr (kStage == Stage::prepare) {
    for (int s = index; s < a.streams; s += blocks) prepare(a, s, a.sequences[s]);
  } else if constexpr (kStage == Stage::norm1 || kStage == Stage::norm2 || kStage == Stage::final_norm) {
    T* const normed = static_cast<T*>(a.normed);
    norm_rows(a, block, norm_of<kFused>(a, kStage, layer)->epsilon, normed, index, blocks);
    if constexpr (kStage == Stage::norm2 && kChanges) {
      __syncthreads();  // of a single row each warp has normed a part
      const int warp = static_cast<int>(threadIdx.x) / kWarp;
      for (int s = index * kWarps + warp; s < a.streams; s += blocks * kWarps)
        convolve_row(a, layer, s, normed + static_cast<int64_t>(s) * a.x_stride);
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
    if (const Norm* norm = norm_of<kFused>(a, kStage, layer); kFused && norm != nullptr && share.has(0))
      norm_rows(a, block, norm->epsilon, block.rows, 0, 1);
    if constexpr (kFused && kStage == Stage::up && kChanges) {
      __syncthreads();  // the rows are normed
      convolve_rows(a, layer, block.rows, index == 0);
    }
    if (kFused && kStage == Stage::projection && share.has(0)) join_rows(a, block.rows, 0, 1);
    if constexpr (kStage == Stage::qkv)
      product_of_rows(a, block, share, weight, a.normed, ahead,
                      WriteQkv<T, kChanges>(a, layer, heads, block.own_rows));
    else if constexpr (kStage == Stage::projection)
      product_of_rows(a, block, share, weight, a.attended, ahead, AddToStream{a});
    else if constexpr (kStage == Stage::up)
      product_of_rows(a, block, share, weight, a.normed, ahead, WriteHidden<T>(a));
    else if constexpr (kStage == Stage::logits)
      product_of_rows(a, block, share, weight, a.normed, ahead, WriteLogits(a));
    else
      product(share, weight, Rows<T, false>{static_cast<const T*>(a.hidden), a.hidden_stride, a.streams},
              kFused ? 0 : static_cast<int>(blockIdx.y) * kRows, ahead, block.room.parts, AddToStream{a});
  }
}

}  // namespace longstride::cuda::decode
