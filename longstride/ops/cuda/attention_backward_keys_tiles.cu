// Sparse attention backward on tensor cores, the keys' side: dk and dv.
//
//   p = exp(scale q.k - lse[q]);  dv[k] = sum_q p d_o[q]
//   ds = p (d_o[q].v[k] - delta[q]);  dk[k] = scale sum_q ds q[q]
//
// A block owns 128 keys and goes through the query tiles that its plan names for them; everything is computed
// transposed, keys down and queries across, so that p and ds come out of one product as the left factor of
// the next. Rounding as in the queries' side; no two blocks of a sweep write the same rows.
#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/attention_launch.cuh"

namespace longstride::cuda {

namespace {

template <class T_, int kWidth_, int kWidthV_>
struct BackwardKeys {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_;
  static constexpr int kAtoms = kWidthV <= 64 ? 2 : 1;
  static constexpr int kThreads = kPair / (16 * kAtoms) * kWarp;
  static constexpr int kBlocks = kAtoms == 2 ? 2 : 1;
  static constexpr int kQueriesAtOnce = 32;
  static constexpr int kKeyBytes = Tile<kWidth>::bytes(kPair), kValueBytes = Tile<kWidthV>::bytes(kPair);
  static constexpr int kQueryBytes = Tile<kWidth>::bytes(kTile), kOutputBytes = Tile<kWidthV>::bytes(kTile);
  static constexpr int kNumbersBytes = 2 * kTile * 4;  // lse and delta of a tile of queries
  static constexpr int kStageBytes = kQueryBytes + kOutputBytes + kNumbersBytes;
  static constexpr int kSharedBytes = kKeyBytes + kValueBytes + 2 * kStageBytes;
};

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    backward_keys_kernel(const __grid_constant__ AttentionArgs a) {
  using T = typename Kind::T;
  constexpr int kAtoms = Kind::kAtoms;
  constexpr int kQueries = Kind::kQueriesAtOnce;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int positions[kPair];
  const uint32_t keys = shared_address(shared), values = keys + Kind::kKeyBytes;
  const uint32_t stages = values + Kind::kValueBytes;

  const int pair = pair_of_block(false), b = blockIdx.z, h = a.heads[blockIdx.y];
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int first_row = warp * 16 * kAtoms, half = first_row / kTile;
  const T *q = a.q.of<const T>(b, h), *d_o = a.d_o.of<const T>(b, h);
  const float* lse = a.lse + row_of_head(a, b, h);
  const float* delta = a.delta + row_of_head(a, b, h);

  const TilePlace low = a.sweep.rows.place(2 * pair), high = a.sweep.rows.place(2 * pair + 1);
  for (int row = thread; row < kPair; row += Kind::kThreads)
    positions[row] = position_in_pair(low, high, row);
  copy_tiles<T, Kind::kWidth, Kind::kWidthV, kPair, Kind::kThreads>(
      {a.k.of<const T>(b, h), a.k.position, a.k.width, keys},
      {a.v.of<const T>(b, h), a.v.position, a.v.width, values}, low, high, thread);

  const auto fetch = [&](const Visit& visit, int stage) {
    if (visit.tile >= 0) {
      const TilePlace place = a.sweep.others[visit.pass].place(visit.tile);
      const uint32_t at = stages + static_cast<uint32_t>(stage * Kind::kStageBytes);
      copy_tiles<T, Kind::kWidth, Kind::kWidthV, kTile, Kind::kThreads>(
          {q, a.q.position, a.q.width, at}, {d_o, a.d_o.position, a.d_o.width, at + Kind::kQueryBytes}, place,
          place, thread);
      if (thread < 2 * kTile) {
        const int position = place.position(thread % kTile);
        const bool present = position < place.n;
        copy4(at + Kind::kQueryBytes + Kind::kOutputBytes + static_cast<uint32_t>(4 * thread),
              (thread < kTile ? lse : delta) + (present ? position : 0), present);
      }
    }
    end_of_copies();
  };
  Visits visits(a.sweep, pair);
  Visit visit = visits.next();
  fetch(visit, 0);

  const float scale = a.scale * kLog2E;
  float dk[kAtoms][Kind::kWidth / 8][4] = {}, dv[kAtoms][Kind::kWidthV / 8][4] = {};

  for (int stage = 0; visit.tile >= 0; stage ^= 1) {
    wait_for_copies<0>();
    __syncthreads();
    const Visit following = visits.next();
    fetch(following, stage ^ 1);
    const int mask = half == 0 ? visit.mask[0] : visit.mask[1];
    if (mask != kAbsent) {
      const uint32_t queries = stages + static_cast<uint32_t>(stage * Kind::kStageBytes);
      const uint32_t outputs = queries + Kind::kQueryBytes;
      const float* numbers =
          reinterpret_cast<const float*>(shared + Kind::kKeyBytes + Kind::kValueBytes +
                                         stage * Kind::kStageBytes + Kind::kQueryBytes + Kind::kOutputBytes);
#pragma unroll 1
      for (int from = 0; from < kTile; from += kQueries) {
        float s[kAtoms][kQueries / 8][4], ds[kAtoms][kQueries / 8][4];
        row_products<T, Kind::kWidth, kAtoms, kQueries>(s, keys, first_row, queries, from, lane);
        row_products<T, Kind::kWidthV, kAtoms, kQueries>(ds, values, first_row, outputs, from, lane);
#pragma unroll
        for (int j = 0; j < kQueries / 8; ++j) {
          const float2 log_sum = *reinterpret_cast<const float2*>(numbers + from + 8 * j + 2 * t);
          const float2 mean = *reinterpret_cast<const float2*>(numbers + kTile + from + 8 * j + 2 * t);
          const float less[2] = {-kLog2E * log_sum.x, -kLog2E * log_sum.y};
#pragma unroll
          for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              float& weight = s[atom][j][e];
              weight = exp2_fast(fmaf(weight, scale, less[e % 2]));
              ds[atom][j][e] = weight * (ds[atom][j][e] - (e % 2 == 0 ? mean.x : mean.y));
            }
        }
        if (mask >= 0) {
#pragma unroll
          for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const int row = (first_row + 16 * atom + 8 * r + g) % kTile;
              const auto word = static_cast<uint32_t>(mask_word<false>(a.masks, mask, row) >> (from + 2 * t));
#pragma unroll
              for (int j = 0; j < kQueries / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                  if ((word >> (8 * j + e) & 1) == 0) s[atom][j][2 * r + e] = ds[atom][j][2 * r + e] = 0;
            }
        }
        add_weighted_rows<T, Kind::kWidthV, kAtoms, kQueries>(dv, s, outputs, from, lane);
        add_weighted_rows<T, Kind::kWidth, kAtoms, kQueries>(dk, ds, queries, from, lane);
      }
    }
    visit = following;
  }

  wait_for_copies<0>();
  __syncthreads();
  float factor[kAtoms][2];
  for (int atom = 0; atom < kAtoms; ++atom) factor[atom][0] = factor[atom][1] = a.scale;
  const WrittenRows<T> rows{a.dk.of<T>(b, h), a.dk.position, a.dk.width, positions, a.n,
                            first_row,        keys,          a.add,      nullptr};
  write_rows<T, Kind::kWidth, kAtoms>(dk, factor, rows, lane);
  for (int atom = 0; atom < kAtoms; ++atom) factor[atom][0] = factor[atom][1] = 1.0f;
  const WrittenRows<T> rows_v{a.dv.of<T>(b, h), a.dv.position, a.dv.width, positions, a.n,
                              first_row,        values,        a.add,      nullptr};
  write_rows<T, Kind::kWidthV, kAtoms>(dv, factor, rows_v, lane);
}

}  // namespace

bool backward_keys_tiles_fit(DType dtype, int width, int width_v) {
  return with_tile_widths(dtype, width, width_v, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = BackwardKeys<T, kWidth, kWidthV>;
    return fits<Kind>(backward_keys_kernel<Kind>);
  });
}

void backward_keys_by_tiles(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_tile_widths(dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = BackwardKeys<T, kWidth, kWidthV>;
    launch_by_pairs<Kind>(backward_keys_kernel<Kind>, "attention_backward for keys", args, heads, batch);
  });
}

}  // namespace longstride::cuda
