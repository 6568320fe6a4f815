// Sparse attention backward on tensor cores, the keys' side: dk and dv.
//
//   p = exp(scale q.k - lse[q]);  dv[k] = sum_q p d_o[q]
//   ds = p (d_o[q].v[k] - delta[q]);  dk[k] = scale sum_q ds q[q]
//
// A block owns 128 keys and goes through the query tiles that its plan names for them; everything is computed
// transposed, keys down and queries across, so that p and ds come out of one product as the left factor of
// the next. Rounding as in the queries' side; no two blocks of a sweep write the same rows.
#include "longstride/ops/cuda/attention_pipeline.cuh"

namespace longstride::cuda {

namespace {

template <class T, int kWidth, int kWidthV>
struct BackwardKeys : PairKernel<T, kWidth, kWidthV>,
                      PairMemory<Tile<kWidth>::bytes(kPair) + Tile<kWidthV>::bytes(kPair),
                                 Tile<kWidth>::bytes(kTile) + Tile<kWidthV>::bytes(kTile) + 2 * kTile * 4> {
  static constexpr int kKeyBytes = Tile<kWidth>::bytes(kPair), kQueryBytes = Tile<kWidth>::bytes(kTile);
  static constexpr int kNumbers = kQueryBytes + Tile<kWidthV>::bytes(kTile);  // lse and delta in a stage
  static constexpr int kQueriesAtOnce = 32;
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
  const auto stage_at = [](int stage) { return Kind::kOwnBytes + stage * Kind::kStageBytes; };

  const PairOfBlock<Kind> block(a, false);
  const int b = block.b, h = block.h, lane = block.lane;
  block.write_positions(positions);
  block.template copy_own<Kind::kWidth, Kind::kWidthV>(
      {a.k.of<const T>(b, h), a.k.position, a.k.width, keys},
      {a.v.of<const T>(b, h), a.v.position, a.v.width, values});

  const T *q = a.q.of<const T>(b, h), *d_o = a.d_o.of<const T>(b, h);
  const float* lse = a.lse + row_of_head(a, b, h);
  const float* delta = a.delta + row_of_head(a, b, h);
  const auto fetch = [&](const TilePlace& place, int stage) {
    const uint32_t at = keys + static_cast<uint32_t>(stage_at(stage));
    copy_tiles<T, Kind::kWidth, Kind::kWidthV, kTile, Kind::kThreads>(
        {q, a.q.position, a.q.width, at}, {d_o, a.d_o.position, a.d_o.width, at + Kind::kQueryBytes}, place,
        place, block.thread);
    if (block.thread < 2 * kTile) {
      const int position = place.position(block.thread % kTile);
      const bool present = position < place.n;
      copy4(at + Kind::kNumbers + static_cast<uint32_t>(4 * block.thread),
            (block.thread < kTile ? lse : delta) + (present ? position : 0), present);
    }
  };

  const float scale = a.scale * kLog2E;
  float dk[kAtoms][Kind::kWidth / 8][4] = {}, dv[kAtoms][Kind::kWidthV / 8][4] = {};

  walk_tiles(a, block, fetch, [&](int stage, int mask) {
    const uint32_t queries = keys + static_cast<uint32_t>(stage_at(stage)),
                   outputs = queries + Kind::kQueryBytes;
    const float* numbers = reinterpret_cast<const float*>(shared + stage_at(stage) + Kind::kNumbers);
#pragma unroll 1
    for (int from = 0; from < kTile; from += kQueries) {
      float s[kAtoms][kQueries / 8][4], ds[kAtoms][kQueries / 8][4];
      row_products<T, Kind::kWidth, kAtoms, kQueries>(s, keys, block.first_row, queries, from, lane);
      row_products<T, Kind::kWidthV, kAtoms, kQueries>(ds, values, block.first_row, outputs, from, lane);
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
        const int column = from + 8 * j + block.column();
        const float2 log_sum = *reinterpret_cast<const float2*>(numbers + column);
        const float2 mean = *reinterpret_cast<const float2*>(numbers + kTile + column);
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
      exclude_masked<false, kQueries / 8>(
          a, block, mask, from, [&](int atom, int j, int e) { s[atom][j][e] = ds[atom][j][e] = 0; });
      add_weighted_rows<T, Kind::kWidthV, kAtoms, kQueries>(dv, s, outputs, from, lane);
      add_weighted_rows<T, Kind::kWidth, kAtoms, kQueries>(dk, ds, queries, from, lane);
    }
  });

  float factor[kAtoms][2];
  for (int atom = 0; atom < kAtoms; ++atom) factor[atom][0] = factor[atom][1] = a.scale;
  const WrittenRows<T> rows{a.dk.of<T>(b, h), a.dk.position, a.dk.width, positions, a.n,
                            block.first_row,  keys,          a.add,      nullptr};
  write_rows<T, Kind::kWidth, kAtoms>(dk, factor, rows, lane);
  for (int atom = 0; atom < kAtoms; ++atom) factor[atom][0] = factor[atom][1] = 1.0f;
  const WrittenRows<T> rows_v{a.dv.of<T>(b, h), a.dv.position, a.dv.width, positions, a.n,
                              block.first_row,  values,        a.add,      nullptr};
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
