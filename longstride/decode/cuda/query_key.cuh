// Queries and keys of the present position where the model normalises or turns them (contract:
// longstride/ops/query_key.h). The product leaves them as projected; whoever reads a head changes it for
// itself, so that no blocks have to wait for each other once more. Every reader gets the same bits.
#pragma once

#include "longstride/decode/cuda/product.cuh"
#include "longstride/ops/cuda/arithmetic.cuh"

namespace longstride::cuda::decode {

// The first of the eight channels of a cached row that this lane has.
__device__ inline int first_of_lane(const Args& a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return (lane & ((1 << a.lane_shift) - 1)) * 8;
}

// How a model changes a head of queries or keys.
struct Change {
  const float* turn;  // (D) cosines, then sines, of the position; null: nothing turns
  int width;          // D
  int lanes;          // neighbouring lanes, a power of two, that have all of a head
  bool normalised, vectors, turn_vectors;
  __device__ Change(const Args& a, int position)
      : turn(a.rotation == nullptr ? nullptr : a.rotation + static_cast<int64_t>(position) * a.head_width),
        width(a.head_width),
        lanes(1 << a.lane_shift),
        normalised(a.normalised),
        vectors(a.vectors),
        turn_vectors(a.turn_vectors) {}
};

// Channels [first, first + 8) of `head`, which is as projected, as the change makes them; zeros beyond D. For
// all lanes of a warp. A function of its own: it needs more registers than its callers have left.
__device__ __noinline__ inline Eight changed(const Change change, const float* head, int first) {
  const int width = change.width, half = width / 2;
  const float* const turn = change.turn;
  const bool turns = turn != nullptr;
  const Eights<float> raw = read_cached(head, first, width, change.vectors);
  Eight x, partner, cosine, sine;
#pragma unroll
  for (int i = 0; i < 8; ++i) x.v[i] = first < width ? raw[i] : 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) partner.v[i] = 0, cosine.v[i] = 1, sine.v[i] = 0;
  if (turns) {
    const auto pair_of = [&](int channel) { return channel < half ? channel : channel - half; };
    const auto partner_of = [&](int channel) { return channel < half ? channel + half : channel - half; };
    if (change.turn_vectors) {
      const int from = first < width ? first : 0;
      const Eights<float> p = read_shared_by_all(head + partner_of(from));
      const Eights<float> c = read_constant(turn + pair_of(from)),
                          s = read_constant(turn + half + pair_of(from));
#pragma unroll
      for (int i = 0; i < 8; ++i) partner.v[i] = p[i], cosine.v[i] = c[i], sine.v[i] = s[i];
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int channel = first + i;
        if (channel >= width) continue;
        partner.v[i] = __ldcg(head + partner_of(channel));
        cosine.v[i] = __ldg(turn + pair_of(channel)), sine.v[i] = __ldg(turn + half + pair_of(channel));
      }
    }
  }
  if (change.normalised) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) squares = __fmaf_rn(x.v[i], x.v[i], squares);
    for (int offset = change.lanes / 2; offset > 0; offset /= 2)
      squares = __fadd_rn(squares, __shfl_xor_sync(0xffffffffu, squares, offset));
    const float mean = __fdiv_rn(squares, static_cast<float>(width));
    const float factor = reciprocal_rms(mean);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      x.v[i] = __fmul_rn(x.v[i], factor), partner.v[i] = __fmul_rn(partner.v[i], factor);
  }
  if (turns) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float other = first + i < half ? -partner.v[i] : partner.v[i];
      x.v[i] = first + i < width ? turned(x.v[i], other, cosine.v[i], sine.v[i]) : 0.0f;
    }
  }
  return x;
}

// Head `head` of sequence s as projected, of the queries or keys `of_all` (S, qk).
__device__ inline const float* projected_head(const Args& a, const float* of_all, int s, int head) {
  return of_all + static_cast<int64_t>(s) * a.qk + head * a.head_width;
}

// Channels [first, first + 8) of a key as the cache holds them. `row` is D wide.
template <class K>
__device__ inline void write_cached(K* row, const Eight& x, int first, int width, bool vectors) {
  if (first >= width) return;
  if (vectors) {
    const Eights<K> rounded = eights_of<K>(x.v);
#pragma unroll
    for (int i = 0; i < Eights<K>::kWords; ++i) reinterpret_cast<uint4*>(row + first)[i] = rounded.raw[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (first + i < width) row[first + i] = from_float<K>(x.v[i]);
}

// Keeps the present position's key of head `head_index` in all its rows of the cache, by one warp. A sequence
// that rests has none, and may stand where the table of angles has ended.
template <class T>
__device__ inline void keep_key(const Args& a, const Layer& layer, const Head& head, int s, int head_index,
                                int position, const OwnRows& own) {
  if (own.row[0] < 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, groups = kWarp >> a.lane_shift;
  const int first = first_of_lane(a);
  const Eight key = changed(Change(a, position), projected_head(a, a.k, s, head_index), first);
  const int64_t row0 = s * layer.rows + head.first_row;
  // Each group of lanes its own rows.
  for (int i = lane >> a.lane_shift; i <= kMaxTerms && own.row[i] >= 0; i += groups) {
    const int64_t at = (row0 + own.row[i]) * a.head_width;
    if (a.wide_keys)
      write_cached(static_cast<float*>(layer.keys) + at, key, first, a.head_width, a.vectors);
    else
      write_cached(static_cast<T*>(layer.keys) + at, key, first, a.head_width, a.vectors);
  }
}

}  // namespace longstride::cuda::decode
