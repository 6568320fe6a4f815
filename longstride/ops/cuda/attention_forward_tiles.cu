// Sparse attention forward on tensor cores, for sm_80 and up.
//
//   o[q] = sum_k softmax_k(scale q.k) v[k] over the allowed k,  lse[q] = log sum_k exp(scale q.k)
//
// A block owns 128 queries of one head and sequence and goes through the key tiles that its plan names; the
// next tile comes in while one is worked on. Scores stay in registers: a running maximum and sum (Milakov,
// Gimelshein, "Online normalizer calculation for softmax", 2018), weights rounded to 16 bits for the second
// product, sums in f32. A sweep whose queries an earlier one has served merges with what that left in o and
// lse.
#include "longstride/ops/cuda/attention_pipeline.cuh"

namespace longstride::cuda {

namespace {

// The queries' room is also o's.
template <class T, int kWidth, int kWidthV>
struct Forward : PairKernel<T, kWidth, kWidthV>,
                 PairMemory<2 * kPair*(kWidth > kWidthV ? kWidth : kWidthV),
                            Tile<kWidth>::bytes(kTile) + Tile<kWidthV>::bytes(kTile)> {
  static constexpr int kKeyBytes = Tile<kWidth>::bytes(kTile);
};

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    forward_kernel(const __grid_constant__ AttentionArgs a) {
  using T = typename Kind::T;
  constexpr int kAtoms = Kind::kAtoms, kColumns = Kind::kWidthV / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int positions[kPair];
  __shared__ float kept[kPair];  // what a merge leaves of the earlier o
  const uint32_t queries = shared_address(shared);
  const auto keys_of = [&](int stage) {
    return queries + static_cast<uint32_t>(Kind::kOwnBytes + stage * Kind::kStageBytes);
  };

  const PairOfBlock<Kind> block(a, true);
  const int b = block.b, h = block.h, lane = block.lane;
  block.write_positions(positions);
  block.template copy_own<Kind::kWidth, 0>({a.q.of<const T>(b, h), a.q.position, a.q.width, queries}, {});

  const T *k = a.k.of<const T>(b, h), *v = a.v.of<const T>(b, h);
  const auto fetch = [&](const TilePlace& place, int stage) {
    const uint32_t at = keys_of(stage);
    copy_tiles<T, Kind::kWidth, Kind::kWidthV, kTile, Kind::kThreads>(
        {k, a.k.position, a.k.width, at}, {v, a.v.position, a.v.width, at + Kind::kKeyBytes}, place, place,
        block.thread);
  };

  float o[kAtoms][kColumns][4] = {};
  float highest[kAtoms][2], sum[kAtoms][2] = {};
  for (int atom = 0; atom < kAtoms; ++atom) highest[atom][0] = highest[atom][1] = -INFINITY;
  const float scale = a.scale * kLog2E;

  walk_tiles(a, block, fetch, [&](int stage, int mask) {
    const uint32_t keys = keys_of(stage), values = keys + Kind::kKeyBytes;
    float s[kAtoms][kTile / 8][4];
    row_products<T, Kind::kWidth, kAtoms, kTile>(s, queries, block.first_row, keys, 0, lane);
    exclude_masked<true, kTile / 8>(a, block, mask, 0,
                                    [&](int atom, int j, int e) { s[atom][j][e] = -INFINITY; });
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
  });

  float* const lse = a.lse + row_of_head(a, b, h);
  float factor[kAtoms][2];
#pragma unroll
  for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[atom][r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int row = block.row(atom, r), position = positions[row];
      const bool any = highest[atom][r] != -INFINITY || total != 0;  // total is NaN where a score was
      float log_sum = any ? highest[atom][r] * a.scale + logf(total) : -INFINITY;
      factor[atom][r] = any ? 1 / total : 0.0f;
      if (a.add) {
        const float before = position < a.n ? lse[position] : -INFINITY;
        const MergedSum merged = merge_sums(before, log_sum);
        factor[atom][r] *= merged.of_fresh;
        if (lane % 4 == 0) kept[row] = merged.of_earlier;
        log_sum = merged.log_sum;
      }
      __syncwarp();
      if (lane % 4 == 0 && position < a.n) lse[position] = log_sum;
    }
  const WrittenRows<T> rows{a.o.of<T>(b, h), a.o.position, a.o.width, positions, a.n,
                            block.first_row, queries,      a.add,     kept};
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
