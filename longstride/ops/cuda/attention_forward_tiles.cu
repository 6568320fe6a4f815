// Sparse attention forward on tensor cores, for sm_80 and up.
//
//   o[q] = sum_k softmax_k(scale q.k) v[k] over the allowed k,  lse[q] = log sum_k exp(scale q.k)
//
// A block owns 128 queries of one head and sequence and goes through the key tiles that its plan names; the
// next tile comes in while one is worked on. Scores stay in registers: a running maximum and sum (Milakov,
// Gimelshein, "Online normalizer calculation for softmax", 2018), weights rounded to 16 bits for the second
// product, sums in f32. A sweep whose queries an earlier one has served merges with what that left in o and
// lse.
#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/attention_launch.cuh"

namespace longstride::cuda {

namespace {

// kWidth of q and k, kWidthV of v, both padded. A warp holds 16 * kAtoms queries.
template <class T_, int kWidth_, int kWidthV_>
struct Forward {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_;
  static constexpr int kAtoms = kWidthV <= 64 ? 2 : 1;
  static constexpr int kThreads = kPair / (16 * kAtoms) * kWarp;
  static constexpr int kBlocks = kAtoms == 2 ? 2 : 1;  // on a multiprocessor, by registers
  static constexpr int kQueryBytes = kPair * 2 * (kWidth > kWidthV ? kWidth : kWidthV);  // also room for o
  static constexpr int kKeyBytes = Tile<kWidth>::bytes(kTile), kValueBytes = Tile<kWidthV>::bytes(kTile);
  static constexpr int kSharedBytes = kQueryBytes + 2 * (kKeyBytes + kValueBytes);
};

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    forward_kernel(const __grid_constant__ AttentionArgs a) {
  using T = typename Kind::T;
  constexpr int kAtoms = Kind::kAtoms, kColumns = Kind::kWidthV / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int positions[kPair];
  __shared__ float kept[kPair];  // what a merge leaves of the earlier o
  const uint32_t queries = shared_address(shared), stages = queries + Kind::kQueryBytes;
  constexpr uint32_t kStageBytes = Kind::kKeyBytes + Kind::kValueBytes;

  const int pair = pair_of_block(true), b = blockIdx.z, h = a.heads[blockIdx.y];
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int first_row = warp * 16 * kAtoms, half = first_row / kTile;
  const T *q = a.q.of<const T>(b, h), *k = a.k.of<const T>(b, h), *v = a.v.of<const T>(b, h);

  const TilePlace low = a.sweep.rows.place(2 * pair), high = a.sweep.rows.place(2 * pair + 1);
  for (int row = thread; row < kPair; row += Kind::kThreads)
    positions[row] = position_in_pair(low, high, row);
  copy_tiles<T, Kind::kWidth, 0, kPair, Kind::kThreads>({q, a.q.position, a.q.width, queries}, {}, low, high,
                                                        thread);

  const auto fetch = [&](const Visit& visit, int stage) {
    if (visit.tile >= 0) {
      const TilePlace place = a.sweep.others[visit.pass].place(visit.tile);
      const uint32_t at = stages + static_cast<uint32_t>(stage) * kStageBytes;
      copy_tiles<T, Kind::kWidth, Kind::kWidthV, kTile, Kind::kThreads>(
          {k, a.k.position, a.k.width, at}, {v, a.v.position, a.v.width, at + Kind::kKeyBytes}, place, place,
          thread);
    }
    end_of_copies();
  };

  Visits visits(a.sweep, pair);
  Visit visit = visits.next();
  fetch(visit, 0);

  float o[kAtoms][kColumns][4] = {};
  float highest[kAtoms][2], sum[kAtoms][2] = {};
  for (int atom = 0; atom < kAtoms; ++atom) highest[atom][0] = highest[atom][1] = -INFINITY;
  const float scale = a.scale * kLog2E;

  for (int stage = 0; visit.tile >= 0; stage ^= 1) {
    wait_for_copies<0>();
    __syncthreads();
    const Visit following = visits.next();
    fetch(following, stage ^ 1);
    const int mask = half == 0 ? visit.mask[0] : visit.mask[1];
    if (mask != kAbsent) {
      const uint32_t keys = stages + static_cast<uint32_t>(stage) * kStageBytes,
                     values = keys + Kind::kKeyBytes;
      float s[kAtoms][kTile / 8][4];
      row_products<T, Kind::kWidth, kAtoms, kTile>(s, queries, first_row, keys, 0, lane);
      if (mask >= 0) {
#pragma unroll
        for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const uint64_t word =
                mask_word<true>(a.masks, mask, (first_row + 16 * atom + 8 * r + g) % kTile) >> (2 * t);
#pragma unroll
            for (int j = 0; j < kTile / 8; ++j)
#pragma unroll
              for (int e = 0; e < 2; ++e)
                if ((word >> (8 * j + e) & 1) == 0) s[atom][j][2 * r + e] = -INFINITY;
          }
      }
      // Softmax so far.
      float shrink[kAtoms][2];
      bool shrinks = false;
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float most = highest[atom][r];
#pragma unroll
          for (int j = 0; j < kTile / 8; ++j)
            most = fmaxf(most, fmaxf(s[atom][j][2 * r], s[atom][j][2 * r + 1]));
          most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
          most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
          // A row without keys so far has no maximum to subtract.
          const float from = most == -INFINITY ? 0.0f : most * scale;
          shrink[atom][r] = exp2_fast(highest[atom][r] * scale - from);
          shrinks |= most > highest[atom][r];
          highest[atom][r] = most;
          float added = 0;
#pragma unroll
          for (int j = 0; j < kTile / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float& weight = s[atom][j][2 * r + e];
              weight = exp2_fast(fmaf(weight, scale, -from));
              added += weight;
            }
          sum[atom][r] = sum[atom][r] * shrink[atom][r] + added;
        }
      // Maxima settle early: most tiles leave them as they are.
      if (__any_sync(0xffffffffu, shrinks)) {
#pragma unroll
        for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
          for (int j = 0; j < kColumns; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) o[atom][j][e] *= shrink[atom][e / 2];
      }
      add_weighted_rows<T, Kind::kWidthV, kAtoms, kTile>(o, s, values, 0, lane);
    }
    visit = following;
  }

  wait_for_copies<0>();
  __syncthreads();
  float* const lse = a.lse + row_of_head(a, b, h);
  float factor[kAtoms][2];
#pragma unroll
  for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[atom][r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int row = first_row + 16 * atom + 8 * r + g, position = positions[row];
      const bool any = highest[atom][r] != -INFINITY || total != 0;  // total is NaN where a score was
      float log_sum = any ? highest[atom][r] * a.scale + logf(total) : -INFINITY;
      factor[atom][r] = any ? 1 / total : 0.0f;
      if (a.add) {
        const float before = position < a.n ? lse[position] : -INFINITY;
        const MergedSum merged = merge_sums(before, log_sum);
        factor[atom][r] *= merged.of_fresh;
        if (t == 0) kept[row] = merged.of_earlier;
        log_sum = merged.log_sum;
      }
      __syncwarp();
      if (t == 0 && position < a.n) lse[position] = log_sum;
    }
  const WrittenRows<T> rows{a.o.of<T>(b, h), a.o.position, a.o.width, positions, a.n,
                            first_row,       queries,      a.add,     kept};
  write_rows<T, Kind::kWidthV, kAtoms>(o, factor, rows, lane);
}

}  // namespace

bool forward_tiles_fit(DType dtype, int width, int width_v) {
  return with_tile_widths(dtype, width, width_v, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = Forward<T, kWidth, kWidthV>;
    return fits<Kind>(forward_kernel<Kind>);
  });
}

void forward_by_tiles(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_tile_widths(dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = Forward<T, kWidth, kWidthV>;
    launch_by_pairs<Kind>(forward_kernel<Kind>, "attention_forward", args, heads, batch);
  });
}

}  // namespace longstride::cuda
