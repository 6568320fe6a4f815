// One pipeline for the attention kernels on tensor cores of sm_80 and up: a block owns the 128 rows of a pair of
// tiles and goes through the tiles that its plan names; the next tile comes in while one is worked on. The forward
// and the two sides of the backward say what a tile holds and what is done with it.
#pragma once

#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/attention_launch.cuh"

namespace longstride::cuda {

// kWidth of q and k, kWidthV of v, both padded. A warp holds 16 * kAtoms of the block's rows.
template <class T_, int kWidth_, int kWidthV_>
struct PairKernel {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_;
  static constexpr int kAtoms = kWidthV <= 64 ? 2 : 1;
  static constexpr int kThreads = kPair / (16 * kAtoms) * kWarp;
  static constexpr int kBlocks = kAtoms == 2 ? 2 : 1;  // on a multiprocessor, by registers
};

// The shared memory of a block: its own rows, and two stages of other tiles.
template <int kOwnBytes_, int kStageBytes_>
struct PairMemory {
  static constexpr int kOwnBytes = kOwnBytes_, kStageBytes = kStageBytes_;
  static constexpr int kSharedBytes = kOwnBytes + 2 * kStageBytes;
};

// Which pair of tiles, sequence and head a block serves, and which of the pair's rows a thread does.
template <class Kind>
struct PairOfBlock {
  int pair, b, h, thread, lane, first_row;  // first_row: of the warp
  TilePlace low, high;

  // last_first: the pairs with the most work come last and are started first.
  __device__ PairOfBlock(const AttentionArgs& a, bool last_first)
      : pair(pair_of_block(last_first)),
        b(static_cast<int>(blockIdx.z)),
        h(a.heads[blockIdx.y]),
        thread(static_cast<int>(threadIdx.x)),
        lane(thread % kWarp),
        first_row(thread / kWarp * 16 * Kind::kAtoms),
        low(a.sweep.rows.place(2 * pair)),
        high(a.sweep.rows.place(2 * pair + 1)) {}

  // A thread holds the values of rows row(atom, 0) and row(atom, 1) in columns 8 * j + column() and the next, as
  // the elements 0, 1 and 2, 3 of [atom][j].
  __device__ int row(int atom, int r) const { return first_row + 16 * atom + 8 * r + lane / 4; }
  __device__ int column() const { return 2 * (lane % 4); }
  __device__ int position(int row) const { return position_in_pair(low, high, row); }

  // All threads: the positions of the block's rows.
  __device__ void write_positions(int (&positions)[kPair]) const {
    for (int r = thread; r < kPair; r += Kind::kThreads) positions[r] = position(r);
  }
  // Starts copying the block's own rows.
  template <int kWidth, int kWidthV>
  __device__ void copy_own(const Copy<typename Kind::T>& a, const Copy<typename Kind::T>& v) const {
    copy_tiles<typename Kind::T, kWidth, kWidthV, kPair, Kind::kThreads>(a, v, low, high, thread);
  }
};

// Calls fetch(place, stage) for each tile of the block's plan, which starts its copies, and once they are there
// work(stage, mask) with the mask of the warp's half of the pair, or not if that half sees nothing of the tile.
// What copy_own() started is there before the first call of work(). Returns when all of the block's threads are
// through and no copy is under way.
template <class Kind, class Fetch, class Work>
__device__ inline void walk_tiles(const AttentionArgs& a, const PairOfBlock<Kind>& block, const Fetch& fetch,
                                  const Work& work) {
  const auto start = [&](const Visit& visit, int stage) {
    if (visit.tile >= 0) fetch(a.sweep.others[visit.pass].place(visit.tile), stage);
    end_of_copies();
  };
  const int half = block.first_row / kTile;
  Visits visits(a.sweep, block.pair);
  Visit visit = visits.next();
  start(visit, 0);
  for (int stage = 0; visit.tile >= 0; stage ^= 1) {
    wait_for_copies<0>();
    __syncthreads();
    const Visit following = visits.next();
    start(following, stage ^ 1);
    const int mask = half == 0 ? visit.mask[0] : visit.mask[1];
    if (mask != kAbsent) work(stage, mask);
    visit = following;
  }
  wait_for_copies<0>();
  __syncthreads();
}

// Calls exclude(atom, j, e) for each of a thread's elements that a mask does not allow, of the tile's rows from
// `from` to `from` + 8 * kGroups. kByQuery: the block's rows are queries.
template <bool kByQuery, int kGroups, class Kind, class Exclude>
__device__ inline void exclude_masked(const AttentionArgs& a, const PairOfBlock<Kind>& block, int mask,
                                      int from, const Exclude& exclude) {
  if (mask < 0) return;
#pragma unroll
  for (int atom = 0; atom < Kind::kAtoms; ++atom)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint64_t word =
          mask_word<kByQuery>(a.masks, mask, block.row(atom, r) % kTile) >> (from + block.column());
#pragma unroll
      for (int j = 0; j < kGroups; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if ((word >> (8 * j + e) & 1) == 0) exclude(atom, j, 2 * r + e);
    }
}

}  // namespace longstride::cuda
