// What the attention kernels share: rows of one head, tiles of positions, a thread's scratch, and the list of
// tiles that the threads deal among themselves.
#pragma once

#include <algorithm>
#include <cstring>

#include "longstride/ops/cpu/attention.h"

namespace longstride::cpu {

// Widths of rows in scratch are rounded up to this, the longest vector; what is added is zero.
inline constexpr int64_t kWidthStep = 16;
inline int64_t padded_width(int64_t width) { return (width + kWidthStep - 1) / kWidthStep * kWidthStep; }

// Threads for `pairs` queries times keys: starting a team costs as much as some hundred thousand products.
inline int team_for(int64_t pairs, int64_t width) { return pairs * width > int64_t{1} << 18 ? threads() : 1; }

// The rows of one sequence and head in a (B, N, H, D) tensor.
struct HeadRows {
  float* data = nullptr;
  int64_t stride = 0;
  float* row(int64_t position) const { return data + position * stride; }
};
inline HeadRows head_rows(const Tensor& t, int64_t batch, int64_t head) {
  return {static_cast<float*>(t.data) + batch * t.stride[0] + head * t.stride[2], t.stride[1]};
}
// The values of one sequence and head in a (B, H, N) tensor.
inline float* head_values(const Tensor& t, int64_t batch, int64_t head) {
  return static_cast<float*>(t.data) + batch * t.stride[0] + head * t.stride[1];
}

// The positions of a tile's indices; -1 for an index that stands for none.
struct TilePositions {
  int64_t count = 0;
  int64_t position[kAttentionTile];

  TilePositions() = default;  // of no tile
  TilePositions(const TileGrid& grid, int64_t tile) : count(grid.size(tile)) {
    const TokenOrder& order = grid.order;
    const int64_t begin = grid.begin(tile);
    int64_t next = order.position(begin);
    // Neighbours are `step` apart; a summary jumps to the next block after every run of `count`.
    const bool summary = order.kind == TokenOrder::Kind::summary;
    const int64_t step = order.kind == TokenOrder::Kind::lanes ? order.width : 1;
    int64_t left_in_run = summary ? order.count - begin % order.count : count + 1;
    for (int64_t i = 0; i < count; ++i) {
      position[i] = next < order.n ? next : -1;
      next += step;
      if (--left_in_run == 0) next += order.width - order.count, left_in_run = order.count;
    }
  }
};

// The tile after `tile` of runs[run], if there is one.
inline TilePositions tile_after(const TileGrid& grid, std::span<const TileRun> runs, size_t run,
                                int32_t tile) {
  if (tile + 1 < runs[run].end) return {grid, tile + 1};
  if (run + 1 < runs.size()) return {grid, runs[run + 1].begin};
  return {};
}

// Rows that will be read soon.
struct RowsAhead {
  HeadRows rows;
  const TilePositions* tile = nullptr;
  int64_t width = 0;
  void prefetch(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < std::min(end, tile->count); ++i) {
      if (tile->position[i] < 0) continue;
      const float* row = rows.row(tile->position[i]);
      for (int64_t j = 0; j < width; j += kWidthStep) __builtin_prefetch(row + j);
    }
  }
};

// Copies a tile's rows to `to`, padded_width(width) apart. Rows without a position, and rows up to a whole
// vector of them, become zero: what they hold takes part in products.
inline void gather_rows(const HeadRows& from, const TilePositions& tile, int64_t width, float* to) {
  const int64_t padded = padded_width(width);
  for (int64_t i = 0; i < padded_width(tile.count); ++i, to += padded) {
    if (i >= tile.count || tile.position[i] < 0) {
      std::memset(to, 0, padded * sizeof(float));
      continue;
    }
    std::memcpy(to, from.row(tile.position[i]), width * sizeof(float));
    if (padded > width) std::memset(to + width, 0, (padded - width) * sizeof(float));
  }
}

// One thread's working memory.
struct TileScratch {
  static constexpr int kPanels = 8;  // tiles of rows, or rows turned: kAttentionTile * padded width
  static constexpr int kScores = 2;  // kAttentionTile * kAttentionTile
  static constexpr int kValues = 4;  // kAttentionTile
  float* base = nullptr;
  int64_t panel_size = 0;

  static int64_t panel_floats(int64_t qk_width, int64_t v_width) {
    return kAttentionTile * std::max(padded_width(qk_width), padded_width(v_width));
  }
  static int64_t floats(int64_t qk_width, int64_t v_width) {
    return kPanels * panel_floats(qk_width, v_width) + kScores * kAttentionTile * kAttentionTile +
           kValues * kAttentionTile;
  }
  float* panel(int i) const { return base + i * panel_size; }
  float* scores(int i) const { return panel(kPanels) + i * kAttentionTile * kAttentionTile; }
  float* values(int i) const { return scores(kScores) + i * kAttentionTile; }
};

// Scratch for every thread, taken from the arena.
class ThreadScratch {
 public:
  ThreadScratch(Arena& arena, int threads, int64_t qk_width, int64_t v_width)
      : panel_(TileScratch::panel_floats(qk_width, v_width)),
        memory_(arena.allocate(DType::f32, {threads, TileScratch::floats(qk_width, v_width)})) {}
  TileScratch of_thread(int thread) const {
    return {static_cast<float*>(memory_.data) + thread * memory_.shape[1], panel_};
  }

 private:
  int64_t panel_;
  Tensor memory_;
};

// A pass whose query tiles are those of an earlier pass is worked off in the same visit; the first of them
// leads.
inline bool same_queries(const Pass& a, const Pass& b) {
  return a.queries.order == b.queries.order && a.queries.tile == b.queries.tile;
}
inline bool leads(const Plan& plan, size_t pass) {
  for (size_t earlier = 0; earlier < pass; ++earlier)
    if (same_queries(plan.passes[earlier], plan.passes[pass])) return false;
  return true;
}

inline size_t most_passes(const AttentionPlan& plan) {
  size_t most = 0;
  for (const Plan& p : plan.plans) most = std::max(most, p.passes.size());
  return most;
}

// Tiles of all sequences and heads in one list, the last tile of a head first: causal patterns make it the
// longest.
struct TileTask {
  int64_t batch, head, tile;
};
template <class CountTiles>  // of a plan
class TileTasks {
 public:
  TileTasks(const AttentionPlan& plan, int64_t batch, CountTiles count_tiles)
      : plan_(plan), count_tiles_(count_tiles) {
    for (size_t h = 0; h < plan.plan_of_head.size(); ++h) in_sequence_ += count_tiles_(plan.head(h));
    size_ = batch * in_sequence_;
  }
  int64_t size() const { return size_; }
  TileTask operator[](int64_t index) const {
    TileTask task{index / in_sequence_, 0, index % in_sequence_};
    for (int64_t tiles; task.tile >= (tiles = count_tiles_(plan_.head(task.head))); ++task.head)
      task.tile -= tiles;
    task.tile = count_tiles_(plan_.head(task.head)) - 1 - task.tile;
    return task;
  }

 private:
  const AttentionPlan& plan_;
  CountTiles count_tiles_;
  int64_t in_sequence_ = 0;
  int64_t size_ = 0;
};

}  // namespace longstride::cpu
