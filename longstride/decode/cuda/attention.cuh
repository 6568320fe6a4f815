// Attention of one position to the rows that its sequence keeps.
//
// A piece is a run of a head's candidates. It has eight parts, one a warp where a block takes the piece (few
// sequences: the shortest wait), one after the other where a warp takes all of it (many: nobody waits for
// another warp). Within a part as many lanes as a row has eights read it, four rows of each group of lanes on
// the way at a time. Groups, then parts, then (where the projection reads them) pieces are joined in order:
// the same bits either way. All arithmetic is f32.
//
// kChanges: queries and keys are normalised or turned. The present position's own key is then on its way into
// the cache while others are read, so its score comes from the key as projected, whatever the row held.
#pragma once

#include "longstride/decode/cuda/query_key.cuh"

namespace longstride::cuda::decode {

inline constexpr int kRowsOnTheWay = 4;
inline constexpr int kParts = kWarps;

// Piece `piece` of head `head` of sequence `sequence`.
struct Piece {
  int sequence, head, piece;
  __device__ Piece(const Args& a, int index)
      : sequence(index / a.most_pieces / a.head_count),
        head(index / a.most_pieces % a.head_count),
        piece(index % a.most_pieces) {}
  static __device__ int count(const Args& a) { return a.streams * a.head_count * a.most_pieces; }
  __device__ int64_t place(const Args& a) const {
    return (static_cast<int64_t>(sequence) * a.head_count + head) * a.most_pieces + piece;
  }
};

// The term that candidate `index` belongs to; `index` becomes the candidate's place there.
__device__ inline int term_of(const Reading& reading, int& index) {
  int t = 0;
  while (t + 1 < reading.term_count && index >= reading.terms[t].count) index -= reading.terms[t++].count;
  return t;
}

// The row of candidate `index`, or -1 if an earlier one is the same key; for any reading.
__device__ __noinline__ inline int row_of_any_candidate(const Args& a, int store, int sequence, int index) {
  const Reading& reading = a.readings[store * a.streams + sequence];
  const int t = term_of(reading, index);
  const TermReading& term = reading.terms[t];
  if (read_before(a.stores[store], reading, t, term.key_at(index))) return -1;
  return term.row_at(index);
}

// Whether candidate `index` is the position's own key; for any reading.
__device__ __noinline__ inline bool any_candidate_is_own(const Args& a, int store, int sequence, int index) {
  const Reading& reading = a.readings[store * a.streams + sequence];
  const int t = term_of(reading, index);
  return reading.terms[t].key_at(index) == reading.query;
}

// What a position of a sequence reads through one store.
struct Candidates {
  RowRuns runs;
  int store, sequence;  // whose they are
  int position;         // where the sequence stands; only if kChanges

  template <bool kChanges>
  __device__ void read(const Args& a, int of_store, int of_sequence) {
    static_assert(sizeof(RowRuns) == 3 * sizeof(int4));
    store = of_store, sequence = of_sequence;
    const int4* from = reinterpret_cast<const int4*>(a.row_runs + store * a.streams + sequence);
    const int4 x = __ldcg(from), y = __ldcg(from + 1), z = __ldcg(from + 2);
    runs = {x.x, x.y, {x.z, x.w}, {y.x, y.y}, {y.z, y.w}, z.x, z.y, z.z, z.w};
    if constexpr (kChanges) position = __ldcg(&a.sequences[of_sequence].position);
  }
  // The row of candidate `index` where the runs are simple.
  __device__ int row(int index) const {
    const bool second = index >= runs.count;
    const int j = second ? index - runs.count : index, ring = second ? runs.ring[1] : runs.ring[0];
    const int row = second ? runs.row[1] + j * runs.step[1] : runs.row[0] + j * runs.step[0];
    return ring > 0 && row >= ring ? row - ring : row;
  }
};

// A part of a piece, and how lanes share its rows.
struct Run {
  int begin, end;     // the part's first candidate, and where the piece ends
  int lanes, groups;  // of a row; rows of a warp at a time
  int group, first;   // this lane's row of them, and its first element there
  __device__ Run(const Args& a, const RowRuns& runs, int piece, int part) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    lanes = 1 << a.lane_shift, groups = kWarp >> a.lane_shift;
    group = lane >> a.lane_shift, first = (lane & (lanes - 1)) * 8;
    end = min((piece + 1) * runs.length, runs.candidates);
    begin = piece * runs.length + part * kRowsOnTheWay * groups;
  }
  __device__ int step() const { return kParts * kRowsOnTheWay * groups; }
  // Whether candidate `index` is in the part.
  __device__ bool holds(int index) const {
    return index >= begin && index < end && (index - begin) % step() < kRowsOnTheWay * groups;
  }
};

// A softmax over some of the keys: sums of exp2(score - highest) and of the same times v.
struct Partial {
  float highest = -INFINITY, total = 0;
  float sum[8] = {};

  // Makes room for scores up to `score`, which is not -infinity.
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

// Asks for the rows of a part, so that they are in the second-level cache when they are read. The position's
// own key need not be there yet.
template <class T>
__device__ inline void prefetch_rows(const Args& a, const Layer& layer, const Head& head, const Piece& p,
                                     const Candidates& candidates, int part) {
  constexpr int kLine = 128;
  const Run run(a, candidates.runs, p.piece, part);
  const int64_t row0 = p.sequence * layer.rows + head.first_row;
  const int key_bytes = a.head_width * static_cast<int>(a.wide_keys ? sizeof(float) : sizeof(T));
  const int value_bytes = a.head_width_v * static_cast<int>(sizeof(T));
  for (int base = run.begin; base < run.end; base += run.step()) {
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const int index = base + u * run.groups + run.group;
      if (index >= run.end || !candidates.runs.simple) continue;
      const int row = candidates.row(index);
      const char* key = static_cast<const char*>(layer.keys) + (row0 + row) * key_bytes;
      const char* value = static_cast<const char*>(layer.values) + (row0 + row) * value_bytes;
      for (int at = run.first / 8 * kLine; at < key_bytes; at += run.lanes * kLine)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(key + at));
      for (int at = run.first / 8 * kLine; at < value_bytes; at += run.lanes * kLine)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(value + at));
    }
  }
}

// The product of a query and a key of which this lane has eight channels, in all `lanes` of the row.
template <class K>
__device__ inline float product_of(const float (&q)[8], const Eights<K>& k, int lanes) {
  float s = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) s = fmaf(q[i], k[i], s);
  for (int offset = lanes / 2; offset > 0; offset /= 2) s += __shfl_xor_sync(0xffffffffu, s, offset);
  return s;
}

// This lane's channels of the query of a piece, as the model changes it.
__device__ inline Eight changed_query(const Args& a, const Piece& p, const Candidates& candidates) {
  return changed(Change(a, candidates.position), projected_head(a, a.q, p.sequence, p.head),
                 first_of_lane(a));
}

// What this lane's rows of a part give. T: of values, K: of keys. kFast: rows suit vectors and the reading is
// simple. changed_query: of this lane, only if kChanges.
template <class T, class K, bool kFast, bool kChanges>
__device__ inline Partial attend_to_rows(const Args& a, const Layer& layer, const Head& head, const Piece& p,
                                         const Candidates& candidates, const Run& run,
                                         const Eight& changed_query) {
  const int lanes = run.lanes, first = run.first;
  const int64_t row0 = p.sequence * layer.rows + head.first_row;
  const K* keys = static_cast<const K*>(layer.keys) + row0 * a.head_width;
  const T* values = static_cast<const T*>(layer.values) + row0 * a.head_width_v;
  const float* query = projected_head(a, a.q, p.sequence, p.head);
  const bool vectors = kFast || (a.vectors && a.vectors_v);
  float q[8];
  float own_product = 0;  // of the query and the position's own key
  if constexpr (kChanges) {
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = changed_query.v[i];
    if (kFast ? run.holds(candidates.runs.own) : run.begin < run.end) {
      const float* const key = projected_head(a, a.k, p.sequence, p.head);
      own_product = product_of(q, eights_of<K>(changed(Change(a, candidates.position), key, first).v), lanes);
    }
  } else {
    const Eights<float> raw_q = read_cached(query, first, a.head_width, vectors);
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = first < a.head_width ? raw_q[i] : 0.0f;
  }

  Partial own;
#pragma unroll 1
  for (int base = run.begin; base < run.end; base += run.step()) {
    Eights<K> k[kRowsOnTheWay];
    Eights<T> v[kRowsOnTheWay];
    uint32_t present = 0, is_own = 0;
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const int index = base + u * run.groups + run.group;
      int row = -1;
      if (index < run.end)
        row = kFast ? candidates.row(index)
                    : row_of_any_candidate(a, candidates.store, candidates.sequence, index);
      present |= (row >= 0 ? 1u : 0u) << u;
      if constexpr (kChanges) {
        const bool its_own =
            kFast ? index == candidates.runs.own
                  : row >= 0 && any_candidate_is_own(a, candidates.store, candidates.sequence, index);
        is_own |= (its_own ? 1u : 0u) << u;
      }
      const int64_t at = max(row, 0);
      k[u] = read_cached(keys + at * a.head_width, first, a.head_width, vectors);
      v[u] = read_cached(values + at * a.head_width_v, first, a.head_width_v, vectors);
    }
    float score[kRowsOnTheWay], most = -INFINITY;
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      float s = product_of(q, k[u], lanes);
      if (kChanges && (is_own >> u & 1)) s = own_product;
      score[u] = present >> u & 1 ? s * a.scale_log2 : -INFINITY;
      most = fmaxf(most, score[u]);
    }
    if (most == -INFINITY) continue;  // lanes of a group agree
    own.raise(most);
#pragma unroll
    for (int u = 0; u < kRowsOnTheWay; ++u) {
      const float weight = exp2_fast(score[u] - own.highest);
      own.total += weight;
#pragma unroll
      for (int i = 0; i < 8; ++i) own.sum[i] = fmaf(weight, v[u][i], own.sum[i]);
    }
  }
  return own;
}

// Part `part` of a piece by one warp, joined into `room` (kParts, 2 + Dv): highest, total, sums.
template <class T, bool kChanges>
__device__ inline void attend_to_part(const Args& a, const Layer& layer, const Head& head, const Piece& p,
                                      const Candidates& candidates, int part, const Eight& changed_query,
                                      float* room) {
  const Run run(a, candidates.runs, p.piece, part);
  const bool fast = a.vectors && a.vectors_v && candidates.runs.simple;
  Partial own;
  if (a.wide_keys)
    own = fast ? attend_to_rows<T, float, true, kChanges>(a, layer, head, p, candidates, run, changed_query)
               : attend_to_rows<T, float, false, kChanges>(a, layer, head, p, candidates, run, changed_query);
  else
    own = fast ? attend_to_rows<T, T, true, kChanges>(a, layer, head, p, candidates, run, changed_query)
               : attend_to_rows<T, T, false, kChanges>(a, layer, head, p, candidates, run, changed_query);
  __syncwarp();
  for (int offset = run.lanes; offset < kWarp; offset *= 2) {
    const float highest = __shfl_xor_sync(0xffffffffu, own.highest, offset);
    const float total = __shfl_xor_sync(0xffffffffu, own.total, offset);
    float sum[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = __shfl_xor_sync(0xffffffffu, own.sum[i], offset);
    // What counts in the end is the first group, which joins the others in order.
    own.join(highest, total, sum);
  }
  float* const to = room + part * (2 + a.head_width_v);
  if (run.group == 0) {
    if (run.first == 0) to[0] = own.highest, to[1] = own.total;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (run.first + i < a.head_width_v) to[2 + run.first + i] = own.sum[i];
  }
}

// The parts in `room`, joined by `threads` threads from `thread` on into the piece's place.
__device__ inline void join_parts(const Args& a, const Piece& p, const float* room, int thread, int threads) {
  const int stride = 2 + a.head_width_v;
  const int64_t place = p.place(a);
  float highest = -INFINITY, total = 0, weight[kParts];
#pragma unroll
  for (int part = 0; part < kParts; ++part) highest = fmaxf(highest, room[part * stride]);
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const float of_part = room[part * stride];
    weight[part] = of_part == -INFINITY ? 0.0f : exp2_fast(of_part - highest);
    total = fmaf(weight[part], room[part * stride + 1], total);
  }
  for (int column = thread; column < a.head_width_v; column += threads) {
    float sum = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) sum = fmaf(weight[part], room[part * stride + 2 + column], sum);
    a.sums[place * a.head_width_v + column] = sum;
  }
  if (thread == 0) a.totals[place] = make_float2(highest, total);
}

// Has the sequence candidates in this piece? One that is empty gets no weight from thread 0 of its caller.
__device__ inline bool is_there(const Args& a, const Piece& p, const Candidates& candidates, int thread) {
  if (p.piece < candidates.runs.pieces) return true;
  if (thread == 0) a.totals[p.place(a)] = make_float2(-INFINITY, 0.0f);
  return false;
}

// Elements `column` and, if `both`, column + 1 of what sequence `s` attends to: the pieces joined. Empty ones
// weigh nothing; all are read, so that no read waits for another.
__device__ inline float2 attended(const Args& a, int s, int column, bool both) {
  constexpr int kAtOnce = 16;
  const int h = a.head_width_v_divisor.quotient(column);
  const int64_t place = (static_cast<int64_t>(s) * a.head_count + h) * a.most_pieces;
  const float* sums = a.sums + place * a.head_width_v + (column - h * a.head_width_v);
  float highest = -INFINITY, total = 0;
  float2 sum = make_float2(0, 0);
#pragma unroll 1
  for (int base = 0; base < a.most_pieces; base += kAtOnce) {
    float2 totals[kAtOnce], part[kAtOnce];
    const float before = highest;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool present = base + i < a.most_pieces;
      const float* from = sums + static_cast<int64_t>(base + i) * a.head_width_v;
      totals[i] = present ? __ldcg(a.totals + place + base + i) : make_float2(-INFINITY, 0.0f);
      part[i] = make_float2(0, 0);
      if (present && both) part[i] = __ldcg(reinterpret_cast<const float2*>(from));
      if (present && !both) part[i].x = __ldcg(from);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) highest = fmaxf(highest, totals[i].x);
    if (highest == -INFINITY) continue;
    const float shrink = before == -INFINITY ? 0.0f : exp2_fast(before - highest);
    sum.x *= shrink, sum.y *= shrink, total *= shrink;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float weight = totals[i].x == -INFINITY ? 0.0f : exp2_fast(totals[i].x - highest);
      sum.x = fmaf(weight, part[i].x, sum.x), sum.y = fmaf(weight, part[i].y, sum.y);
      total = fmaf(weight, totals[i].y, total);
    }
  }
  if (total == 0) return make_float2(0, 0);
  const float share = __fdividef(1.0f, total);
  return make_float2(sum.x * share, sum.y * share);
}

}  // namespace longstride::cuda::decode
