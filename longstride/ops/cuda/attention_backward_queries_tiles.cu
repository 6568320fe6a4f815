// Sparse attention backward on tensor cores, the queries' side: dq.
//
//   p = exp(scale q.k - lse[q]);  ds = p (d_o[q].v[k] - delta[q]);  dq[q] = scale sum_k ds k[k]
//
// A block owns 128 queries and goes through the key tiles of its plan, as the forward does. Weights are
// computed again from lse; ds is rounded to 16 bits for the product with k, sums are f32. No two blocks of a
// sweep write the same rows: the same bits from run to run.
#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/attention_launch.cuh"

namespace longstride::cuda {

namespace {

template <class T_, int kWidth_, int kWidthV_>
struct BackwardQueries {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_;
  static constexpr int kAtoms = kWidthV <= 64 ? 2 : 1;
  static constexpr int kThreads = kPair / (16 * kAtoms) * kWarp;
  static constexpr int kBlocks = kAtoms == 2 ? 2 : 1;
  static constexpr int kKeysAtOnce = 32;  // scores and their gradients share the registers
  static constexpr int kQueryBytes = Tile<kWidth>::bytes(kPair), kOutputBytes = Tile<kWidthV>::bytes(kPair);
  static constexpr int kKeyBytes = Tile<kWidth>::bytes(kTile), kValueBytes = Tile<kWidthV>::bytes(kTile);
  static constexpr int kSharedBytes = kQueryBytes + kOutputBytes + 2 * (kKeyBytes + kValueBytes);
};

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    backward_queries_kernel(const __grid_constant__ AttentionArgs a) {
  using T = typename Kind::T;
  constexpr int kAtoms = Kind::kAtoms;
  constexpr int kColumns = Kind::kWidth / 8, kKeys = Kind::kKeysAtOnce;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int positions[kPair];
  const uint32_t queries = shared_address(shared), outputs = queries + Kind::kQueryBytes;
  const uint32_t stages = outputs + Kind::kOutputBytes;
  constexpr uint32_t kStageBytes = Kind::kKeyBytes + Kind::kValueBytes;

  const int pair = pair_of_block(true), b = blockIdx.z, h = a.heads[blockIdx.y];
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int first_row = warp * 16 * kAtoms, half = first_row / kTile;
  const T *k = a.k.of<const T>(b, h), *v = a.v.of<const T>(b, h);

  const TilePlace low = a.sweep.rows.place(2 * pair), high = a.sweep.rows.place(2 * pair + 1);
  for (int row = thread; row < kPair; row += Kind::kThreads)
    positions[row] = position_in_pair(low, high, row);
  copy_tiles<T, Kind::kWidth, Kind::kWidthV, kPair, Kind::kThreads>(
      {a.q.of<const T>(b, h), a.q.position, a.q.width, queries},
      {a.d_o.of<const T>(b, h), a.d_o.position, a.d_o.width, outputs}, low, high, thread);

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

  const float scale = a.scale * kLog2E;
  float log_sum[kAtoms][2], delta[kAtoms][2];
#pragma unroll
  for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int position = position_in_pair(low, high, first_row + 16 * atom + 8 * r + g);
      const int64_t row = row_of_head(a, b, h) + position;
      log_sum[atom][r] = position < a.n ? a.lse[row] * kLog2E : 0.0f;
      delta[atom][r] = position < a.n ? a.delta[row] : 0.0f;
    }
  float dq[kAtoms][kColumns][4] = {};

  for (int stage = 0; visit.tile >= 0; stage ^= 1) {
    wait_for_copies<0>();
    __syncthreads();
    const Visit following = visits.next();
    fetch(following, stage ^ 1);
    const int mask = half == 0 ? visit.mask[0] : visit.mask[1];
    if (mask != kAbsent) {
      const uint32_t keys = stages + static_cast<uint32_t>(stage) * kStageBytes,
                     values = keys + Kind::kKeyBytes;
#pragma unroll 1
      for (int from = 0; from < kTile; from += kKeys) {
        float s[kAtoms][kKeys / 8][4], ds[kAtoms][kKeys / 8][4];
        row_products<T, Kind::kWidth, kAtoms, kKeys>(s, queries, first_row, keys, from, lane);
        row_products<T, Kind::kWidthV, kAtoms, kKeys>(ds, outputs, first_row, values, from, lane);
#pragma unroll
        for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const float weight = exp2_fast(fmaf(s[atom][j][e], scale, -log_sum[atom][e / 2]));
              ds[atom][j][e] = weight * (ds[atom][j][e] - delta[atom][e / 2]);
            }
        if (mask >= 0) {
#pragma unroll
          for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const int row = (first_row + 16 * atom + 8 * r + g) % kTile;
              const auto word = static_cast<uint32_t>(mask_word<true>(a.masks, mask, row) >> (from + 2 * t));
#pragma unroll
              for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                  if ((word >> (8 * j + e) & 1) == 0) ds[atom][j][2 * r + e] = 0;
            }
        }
        add_weighted_rows<T, Kind::kWidth, kAtoms, kKeys>(dq, ds, keys, from, lane);
      }
    }
    visit = following;
  }

  wait_for_copies<0>();
  __syncthreads();
  float factor[kAtoms][2];
  for (int atom = 0; atom < kAtoms; ++atom) factor[atom][0] = factor[atom][1] = a.scale;
  const WrittenRows<T> rows{a.dq.of<T>(b, h), a.dq.position, a.dq.width, positions, a.n,
                            first_row,        queries,       a.add,      nullptr};
  write_rows<T, Kind::kWidth, kAtoms>(dq, factor, rows, lane);
}

}  // namespace

bool backward_queries_tiles_fit(DType dtype, int width, int width_v) {
  return with_tile_widths(dtype, width, width_v, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = BackwardQueries<T, kWidth, kWidthV>;
    return fits<Kind>(backward_queries_kernel<Kind>);
  });
}

void backward_queries_by_tiles(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_tile_widths(dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = BackwardQueries<T, kWidth, kWidthV>;
    launch_by_pairs<Kind>(backward_queries_kernel<Kind>, "attention_backward for queries", args, heads,
                          batch);
  });
}

}  // namespace longstride::cuda
