// What the attention kernels share: rows of one head, tiles of positions, rows to fetch ahead, a thread's
// scratch, the tasks, and the list of tiles that the threads deal among themselves.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "longstride/ops/cpu/attention.h"

namespace longstride::cpu {

// Widths of rows in scratch are rounded up to this, the longest vector; what is added is zero.
inline constexpr int64_t kWidthStep = 16;
inline int64_t padded_width(int64_t width) { return (width + kWidthStep - 1) / kWidthStep * kWidthStep; }

// Threads for `pairs` queries times keys: starting a team costs as much as some hundred thousand products.
inline int team_for(int64_t pairs, int64_t width) { return pairs * width > int64_t{1} << 18 ? threads() : 1; }

// The rows of one sequence and head in a (B, N, H, D) tensor of f32 or bf16.
struct HeadRows {
  char* data = nullptr;
  int64_t stride = 0;  // bytes
  DType dtype = DType::f32;
  int64_t width = 0;  // elements
  int64_t bytes = 0;  // of them

  char* row(int64_t position) const { return data + position * stride; }
  float* f32(int64_t position) const { return reinterpret_cast<float*>(row(position)); }
  uint16_t* bf16(int64_t position) const { return reinterpret_cast<uint16_t*>(row(position)); }
};
inline HeadRows head_rows(const Tensor& t, int64_t batch, int64_t head) {
  const int64_t size = size_of(t.dtype);
  return {static_cast<char*>(t.data) + (batch * t.stride[0] + head * t.stride[2]) * size, t.stride[1] * size,
          t.dtype, t.shape[3], t.shape[3] * size};
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

inline void copy_as_f32(const char* from, DType dtype, int64_t width, float* to) {
  if (dtype == DType::f32) {
    std::memcpy(to, from, width * sizeof(float));
    return;
  }
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(from);
  for (int64_t j = 0; j < width; ++j) to[j] = std::bit_cast<float>(uint32_t{bits[j]} << 16);
}

// Copies rows of tiles into scratch before they are needed, a few at a time between products, so that memory
// works while the kernels compute.
//
// Rows of a tile may lie a multiple of some power of two apart (a column of a stride), where a cache can hold
// only a few of them: fetching a whole tile ahead would evict its first rows with its last. So each row is
// copied soon after it was fetched.
//
// Rows that need no change may also be used where they lie, fetched but not copied, if a stream allows it and
// the rows do not crowd into a few lines of the cache.
//
// A kernel has a few streams of tiles (the keys that its queries meet, their values, ...); each has a few
// buffers: one in use, one being filled, and those filled before, which a neighbouring task often asks for
// again. Rows come as the tensor has them, or widened from bf16 to
// f32. Rows without a position, the rest of a row up to row_bytes, and rows up to a multiple of kRowStep
// become zero, because they take part in products.
class RowGatherer {
 public:
  static constexpr int64_t kRowStep = 32;

  static constexpr int kBuffers = 4;

  enum class Place { copied, as_it_lies };
  // `memory` holds kBuffers tiles.
  void set_stream(int stream, void* memory, DType dtype, int64_t row_bytes, Place place) {
    streams_[stream] = {static_cast<char*>(memory), dtype, row_bytes, place, {}, 0, nullptr, 0};
  }
  // True if the requests are those for this task, made ahead by the one before; else there are none now.
  bool has(int64_t task) {
    if (task == task_) return true;
    begin(task);
    return false;
  }
  void begin(int64_t task) {
    finish();
    task_ = task;
  }

  // Queues a tile for the stream's other buffer.
  void request(int stream, const HeadRows& rows, const TilePositions& tile) {
    Stream& s = streams_[stream];
    if (s.place == Place::as_it_lies && usable(s, rows, tile)) {
      s.latest = rows.row(tile.position[0]), s.latest_row = rows.stride;
      enqueue(tile, {rows, nullptr, rows.dtype, 0, nullptr});
      return;
    }
    s.latest_row = s.row_bytes;
    int oldest = 0;
    for (int i = 0; i < kBuffers; ++i) {
      Held& held = s.held[i];
      if (held.rows == rows.data && same_positions(held.tile, tile)) {
        held.used = ++s.clock;
        s.latest = s.buffer(i);
        return;
      }
      if (held.used < s.held[oldest].used) oldest = i;
    }
    s.held[oldest] = {rows.data, ++s.clock, tile};
    s.latest = s.buffer(oldest);
    enqueue(tile, {rows, s.buffer(oldest), s.dtype, s.row_bytes, nullptr});
  }
  // Copies the rows that the last step fetched, and fetches some more. Inlined, so that it is compiled with
  // the instructions of the kernel around it.
  __attribute__((always_inline)) void step() {
    if (copied_.request == count_) return;
    copy_fetched();
    for (int64_t lines = 0; lines < kLinesAtATime && fetched_.request < count_;) {
      const Request& r = requests_[fetched_.request];
      const int64_t position = r.tile->position[fetched_.row];
      if (position >= 0)
        for (int64_t byte = 0; byte < r.rows.bytes; byte += 64)
          __builtin_prefetch(r.rows.row(position) + byte);
      lines += (r.rows.bytes + 63) / 64;
      move(fetched_);
    }
  }
  // All that was queued is in place.
  void finish() {
    while (copied_.request < count_) step();
    count_ = 0;
    fetched_ = copied_ = {};
  }
  // The tile that was requested last, complete after finish().
  template <class T>
  struct Rows {
    const T* data = nullptr;
    int64_t row = 0;  // elements from one to the next
    Rows from(int64_t first) const { return {data + first * row, row}; }
  };
  template <class T>
  Rows<T> rows(int stream) const {
    const Stream& s = streams_[stream];
    return {reinterpret_cast<const T*>(s.latest), s.latest_row / static_cast<int64_t>(sizeof(T))};
  }

 private:
  static constexpr int kMostStreams = 4, kMostRequests = 8;
  // As many as a core can wait for at a time; more would stop it. Rows so few also stay in a cache until the
  // next step if all of them fall into the same sets.
  static constexpr int64_t kLinesAtATime = 12;
  // What a buffer holds, or will when the queue is empty.
  struct Held {
    const char* rows = nullptr;
    int64_t used = 0;
    TilePositions tile;
  };
  struct Stream {
    char* memory;
    DType dtype;
    int64_t row_bytes;
    Place place;
    Held held[kBuffers];
    int64_t clock;
    const char* latest;
    int64_t latest_row;  // bytes
    char* buffer(int i) const { return memory + i * kAttentionTile * row_bytes; }
  };
  struct Request {
    HeadRows rows;
    char* to;  // null: fetch only
    DType to_dtype;
    int64_t row_bytes;
    const TilePositions* tile;
  };
  struct Cursor {
    int request = 0;
    int64_t row = 0;
  };

  static bool same_positions(const TilePositions& a, const TilePositions& b) {
    return a.count == b.count && std::equal(a.position, a.position + a.count, b.position);
  }
  // Whole steps of neighbouring rows, in the type and width that are wanted.
  static bool usable(const Stream& s, const HeadRows& rows, const TilePositions& tile) {
    const int64_t last = tile.count - 1;
    return rows.dtype == s.dtype && rows.bytes == s.row_bytes && tile.count % kRowStep == 0 && last > 0 &&
           tile.position[0] >= 0 && tile.position[last] == tile.position[0] + last && rows.stride % 64 == 0 &&
           rows.stride % 2048 != 0;
  }
  void enqueue(const TilePositions& tile, const Request& request) {
    if (tile.count == 0) return;
    tiles_[count_] = tile;
    requests_[count_] = request;
    requests_[count_].tile = &tiles_[count_];
    ++count_;
  }
  __attribute__((always_inline)) void copy_fetched() {
    while (copied_.request != fetched_.request || copied_.row != fetched_.row) {
      copy_row(requests_[copied_.request], copied_.row);
      move(copied_);
    }
  }
  void move(Cursor& cursor) const {
    if (++cursor.row == requests_[cursor.request].tile->count) ++cursor.request, cursor.row = 0;
  }
  __attribute__((always_inline)) static void copy_row(const Request& r, int64_t i) {
    if (r.to == nullptr) return;
    char* to = r.to + i * r.row_bytes;
    const int64_t position = r.tile->position[i];
    if (position >= 0 && r.rows.bytes == r.row_bytes && r.row_bytes % 64 == 0) {
      const char* from = r.rows.row(position);
      for (int64_t byte = 0; byte < r.row_bytes; byte += 64) __builtin_memcpy(to + byte, from + byte, 64);
    } else {
      copy_odd_row(r, position, to);
    }
    if (i + 1 == r.tile->count && r.tile->count % kRowStep != 0)
      std::memset(to + r.row_bytes, 0, (kRowStep - r.tile->count % kRowStep) * r.row_bytes);
  }
  static void copy_odd_row(const Request& r, int64_t position, char* to) {
    int64_t bytes = 0;
    if (position >= 0) {
      bytes = r.rows.width * size_of(r.to_dtype);
      if (r.to_dtype == r.rows.dtype)
        std::memcpy(to, r.rows.row(position), bytes);
      else
        copy_as_f32(r.rows.row(position), r.rows.dtype, r.rows.width, reinterpret_cast<float*>(to));
    }
    if (bytes < r.row_bytes) std::memset(to + bytes, 0, r.row_bytes - bytes);
  }

  Stream streams_[kMostStreams];
  Request requests_[kMostRequests];
  TilePositions tiles_[kMostRequests];
  int count_ = 0;
  Cursor fetched_, copied_;
  int64_t task_ = -1;
};

// Copies a tile's rows to `to`, padded_width(width) apart, as f32, with zeros like RowGatherer's.
inline void gather_rows(const HeadRows& from, const TilePositions& tile, float* to) {
  const int64_t padded = padded_width(from.width);
  for (int64_t i = 0; i < padded_width(tile.count); ++i, to += padded) {
    if (i >= tile.count || tile.position[i] < 0) {
      std::memset(to, 0, padded * sizeof(float));
      continue;
    }
    copy_as_f32(from.row(tile.position[i]), from.dtype, from.width, to);
    if (padded > from.width) std::memset(to + from.width, 0, (padded - from.width) * sizeof(float));
  }
}

// How a tile's results meet what a tensor holds: earlier passes may have been there.
enum class Write { over, onto };

// Values of a tile's positions, and zeros up to kAttentionTile.
inline void gather_values(const float* from, const TilePositions& tile, float* to) {
  for (int64_t i = 0; i < kAttentionTile; ++i)
    to[i] = i < tile.count && tile.position[i] >= 0 ? from[tile.position[i]] : 0;
}

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

// A tile of the other side that a tile meets.
struct Visit {
  TilePositions tile;
  const TileMask* mask = nullptr;  // null where every pair is allowed
  int32_t index = 0;               // of the tile
};

// Walks the key tiles of a query tile (through all passes that share its leader's query tiles), or the query
// tiles of a key tile in one pass.
class Visits {
 public:
  static Visits of_query_tile(const Plan& plan, const std::vector<TileMasks>& masks, size_t leader,
                              int64_t tile) {
    Visits visits(plan, masks, leader, tile);
    visits.by_query_ = true;
    visits.enter_pass();
    return visits;
  }
  static Visits of_key_tile(const Plan& plan, const std::vector<TileMasks>& masks, size_t pass,
                            int64_t tile) {
    Visits visits(plan, masks, pass, tile);
    visits.enter_pass();
    return visits;
  }

  // The next tile; false, and an empty tile, if there is none.
  bool next(Visit& visit) {
    while (run_ == runs_.size()) {
      do {
        if (!by_query_ || ++pass_ >= plan_->passes.size()) {
          visit.tile.count = 0;
          return false;
        }
      } while (!same_queries(plan_->passes[pass_], plan_->passes[leader_]));
      enter_pass();
    }
    const Pass& pass = plan_->passes[pass_];
    visit.index = next_;
    visit.tile = TilePositions(by_query_ ? pass.keys : pass.queries, next_);
    visit.mask = runs_[run_].full ? nullptr : &(*masks_)[pass_].masks[*mask_id_++];
    if (++next_ == runs_[run_].end && ++run_ < runs_.size()) next_ = runs_[run_].begin;
    return true;
  }

 private:
  Visits(const Plan& plan, const std::vector<TileMasks>& masks, size_t pass, int64_t tile)
      : plan_(&plan), masks_(&masks), leader_(pass), pass_(pass), tile_(tile) {}
  void enter_pass() {
    const Pass& pass = plan_->passes[pass_];
    const TileMasks& masks = (*masks_)[pass_];
    runs_ = by_query_ ? pass.rows.of(tile_) : pass.columns.of(tile_);
    mask_id_ = (by_query_ ? masks.of_row(tile_) : masks.of_column(tile_)).data();
    run_ = 0;
    if (!runs_.empty()) next_ = runs_[0].begin;
  }

  const Plan* plan_;
  const std::vector<TileMasks>* masks_;
  size_t leader_, pass_;
  int64_t tile_;
  bool by_query_ = false;
  std::span<const TileRun> runs_;
  const int32_t* mask_id_ = nullptr;
  size_t run_ = 0;
  int32_t next_ = 0;
};

// A query tile of one sequence and head, in the pass that leads its visits.
struct ForwardTask {
  const Plan* plan;
  const std::vector<TileMasks>* masks;
  size_t pass;
  int64_t tile;
  HeadRows q, k, v, o;
  float* lse;
  float scale;
  int64_t index;  // among the tasks of its pass

  TilePositions queries() const { return {plan->passes[pass].queries, tile}; }
  Visits keys() const { return Visits::of_query_tile(*plan, *masks, pass, tile); }
};

// A tile of one sequence and head: of queries in the pass that leads its visits, or of keys in one pass.
struct BackwardTask {
  const Plan* plan;
  const std::vector<TileMasks>* masks;
  size_t pass;
  int64_t tile;
  HeadRows q, k, v, o, d_o, dq, dk, dv;
  const float* lse;
  float* delta;
  float scale;
  int64_t index;  // among the tasks of its pass

  TilePositions queries() const { return {plan->passes[pass].queries, tile}; }
  TilePositions keys() const { return {plan->passes[pass].keys, tile}; }
  Visits visits_of_queries() const { return Visits::of_query_tile(*plan, *masks, pass, tile); }
  Visits visits_of_keys() const { return Visits::of_key_tile(*plan, *masks, pass, tile); }
  // This key tile is the first of all that a query tile of the pass meets, so that dq begins with it.
  bool first_of_query(int32_t query_tile) const {
    return pass == 0 && plan->passes[0].rows.of(query_tile)[0].begin == tile;
  }
};

// The streams of each kernel, and what it asks for: the tiles of a visit, or of a task and its first visit.
namespace stream {
inline constexpr int kQueries = 0, kKeys = 1, kValues = 2, kGradients = 3;
}

template <class Task>
void request_keys(RowGatherer& gatherer, const Task& task, const TilePositions& keys) {
  gatherer.request(stream::kKeys, task.k, keys);
  gatherer.request(stream::kValues, task.v, keys);
}
inline void request_queries(RowGatherer& gatherer, const BackwardTask& task, const TilePositions& queries) {
  gatherer.request(stream::kQueries, task.q, queries);
  gatherer.request(stream::kGradients, task.d_o, queries);
}
inline void request_task(RowGatherer& gatherer, const ForwardTask& task) {
  Visit first;
  Visits visits = task.keys();
  gatherer.begin(task.index);
  gatherer.request(stream::kQueries, task.q, task.queries());
  if (visits.next(first)) request_keys(gatherer, task, first.tile);
}
inline void request_query_task(RowGatherer& gatherer, const BackwardTask& task) {
  Visit first;
  Visits visits = task.visits_of_queries();
  gatherer.begin(task.index);
  request_queries(gatherer, task, task.queries());
  if (visits.next(first)) request_keys(gatherer, task, first.tile);
}
inline void request_key_task(RowGatherer& gatherer, const BackwardTask& task) {
  Visit first;
  Visits visits = task.visits_of_keys();
  gatherer.begin(task.index);
  request_keys(gatherer, task, task.keys());
  if (visits.next(first)) request_queries(gatherer, task, first.tile);
}

// One thread's working memory for f32 arithmetic.
struct TileScratch {
  // Tiles of rows, or rows turned: kAttentionTile * padded width. The gatherer's, and 8.
  static constexpr int kGathered = 4 * RowGatherer::kBuffers, kPanels = kGathered + 8;
  static constexpr int kScores = 2;  // kAttentionTile * kAttentionTile
  static constexpr int kValues = 4;  // kAttentionTile
  float* base = nullptr;
  int64_t panel_size = 0;

  TileScratch(void* memory, int64_t qk_width, int64_t v_width)
      : base(static_cast<float*>(memory)), panel_size(panel_floats(qk_width, v_width)) {}
  static int64_t panel_floats(int64_t qk_width, int64_t v_width) {
    return kAttentionTile * std::max(padded_width(qk_width), padded_width(v_width));
  }
  static int64_t bytes(int64_t qk_width, int64_t v_width) {
    return 4 * (kPanels * panel_floats(qk_width, v_width) + kScores * kAttentionTile * kAttentionTile +
                kValues * kAttentionTile);
  }
  void lay_out(RowGatherer& gatherer, int64_t qk_width, int64_t v_width) const {
    for (const int s : {stream::kQueries, stream::kKeys, stream::kValues, stream::kGradients}) {
      const int64_t width = s == stream::kQueries || s == stream::kKeys ? qk_width : v_width;
      gatherer.set_stream(s, base + s * RowGatherer::kBuffers * panel_size, DType::f32,
                          padded_width(width) * 4, RowGatherer::Place::copied);
    }
  }
  float* panel(int i) const { return base + (kGathered + i) * panel_size; }
  float* scores(int i) const { return base + kPanels * panel_size + i * kAttentionTile * kAttentionTile; }
  float* values(int i) const { return scores(kScores) + i * kAttentionTile; }
};

// dq of the query tiles that were met last, while key tiles are walked: neighbours meet the same ones.
struct QuerySums {
  static constexpr int kTiles = 4;
  struct Tile {
    int32_t index = -1;  // of the query tile; -1 for none
    int64_t used = 0;
    TilePositions queries;
    Write write = Write::over;
    float* dq = nullptr;
  };
  Tile tiles[kTiles];
  int64_t clock = 0;

  explicit QuerySums(const TileScratch& scratch) {
    for (int i = 0; i < kTiles; ++i) tiles[i].dq = scratch.panel(4 + i);
  }
};

// Neighbouring tasks go to one thread, which can then fetch ahead, as long as enough are left to share out.
inline int tasks_at_a_time(int64_t tasks, int team) {
  return static_cast<int>(std::clamp<int64_t>(tasks / (int64_t{team} * 16), 1, 16));
}

// Tiles of all sequences and heads in one list, the last tile of a head first: causal patterns make it the
// longest, and its neighbours look at the same keys.
struct TileTask {
  int64_t batch, head, tile;
};
template <class CountTiles>  // of a plan
class TileTasks {
 public:
  TileTasks(const AttentionPlan& plan, int64_t batch, CountTiles count_tiles)
      : heads_(static_cast<int64_t>(plan.plan_of_head.size())), plan_(plan), count_tiles_(count_tiles) {
    for (const Plan& p : plan.plans) most_ = std::max<int64_t>(most_, count_tiles_(p));
    size_ = batch * heads_ * most_;
  }
  int64_t size() const { return size_; }
  // False if `index` is beyond the list, or stands for a tile that its head's plan does not have.
  bool get(int64_t index, TileTask& task) const {
    if (index >= size_) return false;
    const int64_t head = index / most_;
    task = {head / heads_, head % heads_, most_ - 1 - index % most_};
    return task.tile < count_tiles_(plan_.head(task.head));
  }

 private:
  int64_t heads_;
  const AttentionPlan& plan_;
  CountTiles count_tiles_;
  int64_t most_ = 0;
  int64_t size_ = 0;
};

}  // namespace longstride::cpu
