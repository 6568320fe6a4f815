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

// The block's copy of what a sequence reads, kept from piece to piece: readings change between steps only.
struct ReadingCopy {
  Reading reading;
  int32_t store, sequence;  // whose it is
};

// As one block, which then has to meet.
__device__ inline void copy_reading(const Args& a, int store, int sequence, ReadingCopy& to) {
  static_assert(sizeof(Reading) % 4 == 0 && sizeof(Reading) / 4 <= kThreads);
  const Reading* from = a.readings + store * a.streams + sequence;
  const int i = static_cast<int>(threadIdx.x);
  if (i < static_cast<int>(sizeof(Reading) / 4))
    reinterpret_cast<uint32_t*>(&to.reading)[i] = __ldcg(reinterpret_cast<const uint32_t*>(from) + i);
  if (i == 0) to.store = store, to.sequence = sequence;
}

// Where candidate `index` stands: its row, or -1 if an earlier term has named its key.
__device__ inline int row_of_candidate(const KeyStore* store, const Reading& reading, int index) {
  int t = 0;
  while (t + 1 < reading.term_count && index >= reading.terms[t].count) index -= reading.terms[t++].count;
  const TermReading& term = reading.terms[t];
  if (term.may_repeat && read_before(*store, reading, t, term.key_at(index))) return -1;
  return term.row_at(index);
}

// Eight elements of a cached row from `first` on; beyond its width anything, or zeros if not kVectors.
template <bool kVectors, class T>
__device__ inline Eights<T> read_cached(const T* row, int first, int width) {
  if constexpr (kVectors) return read_shared_by_all(row + (first < width ? first : 0));
  Eights<T> x = no_eights<T>();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (first + i >= width) continue;
    if constexpr (sizeof(T) == 2) {
      const unsigned short raw = __ldcg(reinterpret_cast<const unsigned short*>(row) + first + i);
      x.v[i] = *reinterpret_cast<const T*>(&raw);
    } else {
      x.v[i] = __ldcg(row + first + i);
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

// A piece's run of candidates, and how lanes share its rows.
struct Run {
  int begin, end;
  int lanes, groups;  // of a row; rows of a warp at a time
  int group, first;   // this lane's row of them, and its first element there
  __device__ Run(const Args& a, const Reading& reading, int piece) {
    const int pieces = pieces_of(reading.candidates, a.most_pieces);
    const int length = pieces > 0 ? (reading.candidates + pieces - 1) / pieces : 0;
    begin = min(piece * length, reading.candidates), end = min(begin + length, reading.candidates);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    lanes = a.lanes_of_row, groups = kWarp / lanes;
    group = lane / lanes, first = lane % lanes * 8;
  }
  // This warp's first candidate, and how far it is to those that it takes next.
  __device__ int from() const {
    return begin + static_cast<int>(threadIdx.x) / kWarp * kRowsOnTheWay * groups;
  }
  __device__ int step() const { return kWarps * kRowsOnTheWay * groups; }
};

// Asks for the rows of a piece, so that they are in the second-level cache when attend() reads them. The
// position's own key need not be there yet.
template <class T>
__device__ inline void prefetch_rows(const Args& a, const Layer& layer, const Head& head, const Piece& p,
                                     const Reading& reading) {
  constexpr int kLine = 128;
  const Run run(a, reading, p.piece);
  const int64_t row0 = p.sequence * layer.rows + head.first_row;
  const int key_bytes = a.head_width * static_cast<int>(a.wide_keys ? sizeof(float) : sizeof(T));
  const int value_bytes = a.head_width_v * static_cast<int>(sizeof(T));
  for (int base = run.from(); base < run.end; base += run.step()) {
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const int index = base + u * run.groups + run.group;
      const int row = index < run.end ? row_of_candidate(a.stores + head.store, reading, index) : -1;
      if (row < 0) continue;
      const char* key = static_cast<const char*>(layer.keys) + (row0 + row) * key_bytes;
      const char* value = static_cast<const char*>(layer.values) + (row0 + row) * value_bytes;
      for (int at = run.first / 8 * kLine; at < key_bytes; at += run.lanes * kLine)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(key + at));
      for (int at = run.first / 8 * kLine; at < value_bytes; at += run.lanes * kLine)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(value + at));
    }
  }
}

// What this lane's rows of the piece give. T: of values, K: of keys.
template <class T, class K, bool kVectors>
__device__ inline Partial attend_to_rows(const Args& a, const Layer& layer, const Head& head, const Piece& p,
                                         const Reading& reading) {
  const Run run(a, reading, p.piece);
  const int lanes = run.lanes, first = run.first;
  const int64_t row0 = p.sequence * layer.rows + head.first_row;
  const K* keys = static_cast<const K*>(layer.keys) + row0 * a.head_width;
  const T* values = static_cast<const T*>(layer.values) + row0 * a.head_width_v;
  const float* query = a.q + static_cast<int64_t>(p.sequence) * a.qk + p.head * a.head_width;
  Eights<float> q = read_cached<kVectors>(query, first, a.head_width);
#pragma unroll
  for (float& element : q.v) element = first < a.head_width ? element * a.scale_log2 : 0.0f;

  Partial own;
  for (int base = run.from(); base < run.end; base += run.step()) {
    Eights<K> k[kRowsOnTheWay];
    Eights<T> v[kRowsOnTheWay];
    bool present[kRowsOnTheWay];
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const int index = base + u * run.groups + run.group;
      const int row = index < run.end ? row_of_candidate(a.stores + head.store, reading, index) : -1;
      present[u] = row >= 0;
      const int64_t at = row >= 0 ? row : 0;
      k[u] = read_cached<kVectors>(keys + at * a.head_width, first, a.head_width);
      v[u] = read_cached<kVectors>(values + at * a.head_width_v, first, a.head_width_v);
    }
    float score[kRowsOnTheWay], most = -INFINITY;
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      float s = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) s = fmaf(q.v[i], to_float(k[u].v[i]), s);
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
      for (int i = 0; i < 8; ++i) own.sum[i] = fmaf(weight, to_float(v[u].v[i]), own.sum[i]);
    }
  }
  return own;
}

// The piece's sums and totals; an empty piece has no weight.
template <class T>
__device__ inline void attend(const Args& a, const Layer& layer, const Head& head, const Piece& p,
                              const Reading& reading, PieceRoom& room) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int64_t place = (static_cast<int64_t>(p.sequence) * a.head_count + p.head) * a.most_pieces + p.piece;
  const Run run(a, reading, p.piece);
  if (run.begin >= run.end) {  // as one block
    if (thread == 0) a.totals[place] = make_float2(-INFINITY, 0.0f);
    return;
  }
  const bool vectors = a.vectors && a.vectors_v;
  Partial own;
  if (a.wide_keys)
    own = vectors ? attend_to_rows<T, float, true>(a, layer, head, p, reading)
                  : attend_to_rows<T, float, false>(a, layer, head, p, reading);
  else
    own = vectors ? attend_to_rows<T, T, true>(a, layer, head, p, reading)
                  : attend_to_rows<T, T, false>(a, layer, head, p, reading);
  __syncwarp();
  const int lanes = run.lanes, first = run.first;
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

// Element `column` of what sequence `s` attends to: the pieces joined. Empty ones weigh nothing; all are
// read, so that no read waits for another.
__device__ inline float attended(const Args& a, int s, int column) {
  constexpr int kAtOnce = 16;
  const int h = column / a.head_width_v;
  const int64_t place = (static_cast<int64_t>(s) * a.head_count + h) * a.most_pieces;
  const float* sums = a.sums + place * a.head_width_v + column % a.head_width_v;
  float highest = -INFINITY, sum = 0, total = 0;
  for (int base = 0; base < a.most_pieces; base += kAtOnce) {
    float2 totals[kAtOnce];
    float part[kAtOnce], before = highest;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool present = base + i < a.most_pieces;
      totals[i] = present ? __ldcg(a.totals + place + base + i) : make_float2(-INFINITY, 0.0f);
      part[i] = present ? __ldcg(sums + static_cast<int64_t>(base + i) * a.head_width_v) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) highest = fmaxf(highest, totals[i].x);
    if (highest == -INFINITY) continue;
    const float shrink = before == -INFINITY ? 0.0f : exp2_fast(before - highest);
    sum *= shrink, total *= shrink;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float weight = totals[i].x == -INFINITY ? 0.0f : exp2_fast(totals[i].x - highest);
      sum = fmaf(weight, part[i], sum);
      total = fmaf(weight, totals[i].y, total);
    }
  }
  return total == 0 ? 0.0f : sum / total;
}

}  // namespace longstride::cuda::decode
