// Sparse attention backward on tensor cores, the queries' side: dq.
//
//   p = exp(scale q.k - lse[q]);  ds = p (d_o[q].v[k] - delta[q]);  dq[q] = scale sum_k ds k[k]
//
// A block owns 128 queries and goes through the key tiles of its plan, as the forward does. Weights are
// computed again from lse; ds is rounded to 16 bits for the product with k, sums are f32. No two blocks of a
// sweep write the same rows: the same bits from run to run.
#include "longstride/ops/cuda/attention_pipeline.cuh"

namespace longstride::cuda {

namespace {

template <class T, int kWidth, int kWidthV>
struct BackwardQueries : PairKernel<T, kWidth, kWidthV>,
                         PairMemory<Tile<kWidth>::bytes(kPair) + Tile<kWidthV>::bytes(kPair),
                                    Tile<kWidth>::bytes(kTile) + Tile<kWidthV>::bytes(kTile)> {
  static constexpr int kQueryBytes = Tile<kWidth>::bytes(kPair), kKeyBytes = Tile<kWidth>::bytes(kTile);
  static constexpr int kKeysAtOnce = 32;  // scores and their gradients share the registers
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
  const auto keys_of = [&](int stage) {
    return queries + static_cast<uint32_t>(Kind::kOwnBytes + stage * Kind::kStageBytes);
  };

  const PairOfBlock<Kind> block(a, true);
  const int b = block.b, h = block.h, lane = block.lane;
  block.write_positions(positions);
  block.template copy_own<Kind::kWidth, Kind::kWidthV>(
      {a.q.of<const T>(b, h), a.q.position, a.q.width, queries},
      {a.d_o.of<const T>(b, h), a.d_o.position, a.d_o.width, outputs});

  const T *k = a.k.of<const T>(b, h), *v = a.v.of<const T>(b, h);
  const auto fetch = [&](const TilePlace& place, int stage) {
    const uint32_t at = keys_of(stage);
    copy_tiles<T, Kind::kWidth, Kind::kWidthV, kTile, Kind::kThreads>(
        {k, a.k.position, a.k.width, at}, {v, a.v.position, a.v.width, at + Kind::kKeyBytes}, place, place,
        block.thread);
  };

  const float scale = a.scale * kLog2E;
  float log_sum[kAtoms][2], delta[kAtoms][2];
#pragma unroll
  for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int position = block.position(block.row(atom, r));
      const int64_t row = row_of_head(a, b, h) + position;
      log_sum[atom][r] = position < a.n ? a.lse[row] * kLog2E : 0.0f;
      delta[atom][r] = position < a.n ? a.delta[row] : 0.0f;
    }
  float dq[kAtoms][kColumns][4] = {};

  walk_tiles(a, block, fetch, [&](int stage, int mask) {
    const uint32_t keys = keys_of(stage), values = keys + Kind::kKeyBytes;
#pragma unroll 1
    for (int from = 0; from < kTile; from += kKeys) {
      float s[kAtoms][kKeys / 8][4], ds[kAtoms][kKeys / 8][4];
      row_products<T, Kind::kWidth, kAtoms, kKeys>(s, queries, block.first_row, keys, from, lane);
      row_products<T, Kind::kWidthV, kAtoms, kKeys>(ds, outputs, block.first_row, values, from, lane);
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float weight = exp2_fast(fmaf(s[atom][j][e], scale, -log_sum[atom][e / 2]));
            ds[atom][j][e] = weight * (ds[atom][j][e] - delta[atom][e / 2]);
          }
      exclude_masked<true, kKeys / 8>(a, block, mask, from,
                                      [&](int atom, int j, int e) { ds[atom][j][e] = 0; });
      add_weighted_rows<T, Kind::kWidth, kAtoms, kKeys>(dq, ds, keys, from, lane);
    }
  });

  float factor[kAtoms][2];
  for (int atom = 0; atom < kAtoms; ++atom) factor[atom][0] = factor[atom][1] = a.scale;
  const WrittenRows<T> rows{a.dq.of<T>(b, h), a.dq.position, a.dq.width, positions, a.n,
                            block.first_row,  queries,       a.add,      nullptr};
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
