// Attention of one position to the rows that its sequence keeps.
//
// A piece is a run of a head's candidates; a block takes a piece, its warps take the candidates by turns, as
// many lanes to a row as it has eights, four rows at a time on the way. Each group of lanes sums
// exp2(score - highest) v for its own rows; groups, then warps, then (where the projection reads them)
// pieces are joined in order. All arithmetic is f32.
#pragma once

#include "longstride/ops/cuda/decode/product.cuh"

namespace longstride::cuda::decode {

inline constexpr int kRowsOnTheWay = 4;

// In shared memory.
struct PieceRoom {
  Reading reading;
  float highest[kWarps], total[kWarps];
  float sum[kWarps][kWidestHead];
};

// Piece `piece` of head `head` of sequence `sequence`.
struct Piece {
  int sequence, head, piece;
  __device__ Piece(const Args& a, int index)
      : sequence(index / a.most_pieces / a.head_count),
        head(index / a.most_pieces % a.head_count),
        piece(index % a.most_pieces) {}
  static __device__ int count(const Args& a) { return a.streams * a.head_count * a.most_pieces; }
};

__device__ inline void read_reading(const Reading& from, Reading& to) {
  static_assert(sizeof(Reading) % 4 == 0);
  const int words = sizeof(Reading) / 4, i = static_cast<int>(threadIdx.x);
  if (i < words) reinterpret_cast<uint32_t*>(&to)[i] = __ldcg(reinterpret_cast<const uint32_t*>(&from) + i);
}

// Where candidate `index` stands: its row, or -1 if an earlier term has named its key.
__device__ inline int row_of_candidate(const KeyStore& store, const Reading& reading, int index) {
  int t = 0;
  while (t + 1 < reading.term_count && index >= reading.terms[t].count) index -= reading.terms[t++].count;
  const TermReading& term = reading.terms[t];
  if (t > 0 && read_before(store, reading, t, term.key_at(index))) return -1;
  return term.row_at(index);
}

// Eight elements of a cached row from `first` on, zeros beyond its width.
template <class T>
__device__ inline Eight read_cached(const T* row, int first, int width, bool vectors) {
  Eight x;
  if (vectors && first < width) {
    const Eights<T> raw = read_shared_by_all(row + first);
#pragma unroll
    for (int i = 0; i < 8; ++i) x.v[i] = to_float(raw.v[i]);
    return x;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x.v[i] = 0;
    if (first + i < width) {
      if constexpr (sizeof(T) == 2) {
        const unsigned short raw = __ldcg(reinterpret_cast<const unsigned short*>(row) + first + i);
        x.v[i] = to_float(*reinterpret_cast<const T*>(&raw));
      } else {
        x.v[i] = __ldcg(row + first + i);
      }
    }
  }
  return x;
}

// A softmax over some of the keys: sums of exp2(score - highest) and of the same times v.
struct Partial {
  float highest = -INFINITY, total = 0;
  float sum[8] = {};

  // Makes room for scores up to `score`; returns nothing that is not finite where nothing has been seen.
  __device__ void raise(float score) {
    const float next = fmaxf(highest, score);
    const float shrink = highest == -INFINITY ? 0.0f : exp2_fast(highest - next);
    highest = next;
    total *= shrink;
#pragma unroll
    for (float& s : sum) s *= shrink;
  }
  __device__ void join(float other_highest, float other_total, const float (&other)[8]) {
    if (other_highest == -INFINITY) return;
    raise(other_highest);
    const float weight = exp2_fast(other_highest - highest);
    total = fmaf(weight, other_total, total);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = fmaf(weight, other[i], sum[i]);
  }
};

// T: of values, and of keys unless those are f32.
template <class T>
__device__ inline void attend(const Args& a, const Layer& layer, const Piece& p, PieceRoom& room) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const Head head = a.heads[layer.heads_from + p.head];
  const KeyStore& store = a.stores[head.store];
  const int candidates = room.reading.candidates, pieces = pieces_of(candidates, a.most_pieces);
  if (p.piece >= pieces) return;  // as one block
  const int length = (candidates + pieces - 1) / pieces;
  const int begin = p.piece * length, end = min(begin + length, candidates);

  int lanes = 1;  // of a row
  while (8 * lanes < a.head_width || 8 * lanes < a.head_width_v) lanes *= 2;
  const int groups = kWarp / lanes, group = lane / lanes, first = lane % lanes * 8;
  const int64_t row0 = p.sequence * layer.rows + head.first_row;
  const T* values = static_cast<const T*>(layer.values) + row0 * a.head_width_v;
  Eight q = read_cached(a.q + static_cast<int64_t>(p.sequence) * a.qk + p.head * a.head_width, first,
                        a.head_width, a.vectors);
#pragma unroll
  for (float& element : q.v) element *= a.scale_log2;

  Partial own;
  for (int base = begin + warp * kRowsOnTheWay * groups; base < end;
       base += kWarps * kRowsOnTheWay * groups) {
    Eight k[kRowsOnTheWay], v[kRowsOnTheWay];
    bool present[kRowsOnTheWay];
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const int index = base + u * groups + group;
      const int row = index < end ? row_of_candidate(store, room.reading, index) : -1;
      present[u] = row >= 0;
      const int64_t at = row >= 0 ? row : 0;
      k[u] = v[u] = Eight{};
      if (present[u]) {
        const int64_t key = (row0 + at) * a.head_width;
        k[u] = a.wide_keys
                   ? read_cached(static_cast<const float*>(layer.keys) + key, first, a.head_width, a.vectors)
                   : read_cached(static_cast<const T*>(layer.keys) + key, first, a.head_width, a.vectors);
        v[u] = read_cached(values + at * a.head_width_v, first, a.head_width_v, a.vectors_v);
      }
    }
    float score[kRowsOnTheWay], most = -INFINITY;
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      float s = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) s = fmaf(q.v[i], k[u].v[i], s);
      for (int offset = lanes / 2; offset > 0; offset /= 2) s += __shfl_xor_sync(0xffffffffu, s, offset);
      score[u] = present[u] ? s : -INFINITY;
      most = fmaxf(most, score[u]);
    }
    if (most == -INFINITY) continue;  // nothing present; lanes of a group agree, and no vote follows
    own.raise(most);
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const float weight = exp2_fast(score[u] - own.highest);
      own.total += weight;
#pragma unroll
      for (int i = 0; i < 8; ++i) own.sum[i] = fmaf(weight, v[u].v[i], own.sum[i]);
    }
  }
  __syncwarp();
  for (int offset = lanes; offset < kWarp; offset *= 2) {
    const float highest = __shfl_xor_sync(0xffffffffu, own.highest, offset);
    const float total = __shfl_xor_sync(0xffffffffu, own.total, offset);
    float sum[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = __shfl_xor_sync(0xffffffffu, own.sum[i], offset);
    // What counts in the end is the first group, which joins the others in order.
    own.join(highest, total, sum);
  }
  if (lane < lanes) {
    if (lane == 0) room.highest[warp] = own.highest, room.total[warp] = own.total;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (first + i < a.head_width_v) room.sum[warp][first + i] = own.sum[i];
  }
  __syncthreads();
  float highest = -INFINITY;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, room.highest[w]);
  const int64_t place = (static_cast<int64_t>(p.sequence) * a.head_count + p.head) * a.most_pieces + p.piece;
  if (thread < a.head_width_v) {
    float sum = 0, total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = room.highest[w] == -INFINITY ? 0.0f : exp2_fast(room.highest[w] - highest);
      if (weight > 0) sum = fmaf(weight, room.sum[w][thread], sum);
      total = fmaf(weight, room.total[w], total);
    }
    a.sums[place * a.head_width_v + thread] = sum;
    if (thread == 0) a.totals[place] = make_float2(highest, total);
  }
}

// Element `column` of what sequence `s` attends to: the pieces joined.
__device__ inline float attended(const Args& a, const Layer& layer, int s, int column) {
  const int h = column / a.head_width_v, store = a.heads[layer.heads_from + h].store;
  const int candidates = __ldcg(&a.readings[store * a.streams + s].candidates);
  const int pieces = pieces_of(candidates, a.most_pieces);
  const int64_t place = (static_cast<int64_t>(s) * a.head_count + h) * a.most_pieces;
  const float* sums = a.sums + place * a.head_width_v + column % a.head_width_v;
  float highest = -INFINITY;
#pragma unroll 8
  for (int i = 0; i < pieces; ++i) highest = fmaxf(highest, __ldcg(&a.totals[place + i].x));
  float sum = 0, total = 0;
#pragma unroll 8
  for (int i = 0; i < pieces; ++i) {
    const float2 piece = __ldcg(a.totals + place + i);
    const float weight = piece.x == -INFINITY ? 0.0f : exp2_fast(piece.x - highest);
    sum = fmaf(weight, __ldcg(sums + static_cast<int64_t>(i) * a.head_width_v), sum);
    total = fmaf(weight, piece.y, total);
  }
  return total == 0 ? 0.0f : sum / total;
}

}  // namespace longstride::cuda::decode
