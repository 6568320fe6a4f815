// The common parts of the attention kernels: the tasks and what they visit, a thread's scratch, and the list
// of tiles that the threads share.
#pragma once

#include <algorithm>

#include "longstride/base/threads.h"
#include "longstride/ops/cpu/attention_rows.h"

namespace longstride::cpu {

// Threads for `pairs` queries times keys. Waking the threads costs as much as some hundred thousand
// products.
inline int team_for(int64_t pairs, int64_t width) { return pairs * width > int64_t{1} << 18 ? threads() : 1; }

// A pass with the same query tiles as an earlier pass is computed in the same visit. The first of them
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
  Visits visits_of_queries() const { return Visits::of_query_tile(*plan, *masks, pass, tile); }
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
  // Whether this key tile is the first of all that a query tile of the pass meets, so that dq begins with
  // it.
  bool first_of_query(int32_t query_tile) const {
    return pass == 0 && plan->passes[0].rows.of(query_tile)[0].begin == tile;
  }
};

namespace stream {
inline constexpr int kQueries = 0, kKeys = 1, kValues = 2, kGradients = 3;
}

// A tile of queries that walks over the keys which they see.
struct WalkOverKeys {
  static constexpr int kFirst = stream::kKeys, kSecond = stream::kValues;  // of what is visited

  template <class Task>
  static Visits visits(const Task& task) {
    return task.visits_of_queries();
  }
  static void request_own(RowGatherer& gatherer, const ForwardTask& task) {
    gatherer.request(stream::kQueries, task.q, task.queries());
  }
  static void request_own(RowGatherer& gatherer, const BackwardTask& task) {
    gatherer.request(stream::kQueries, task.q, task.queries());
    gatherer.request(stream::kGradients, task.d_o, task.queries());
  }
  template <class Task>
  static void request_visited(RowGatherer& gatherer, const Task& task, const TilePositions& keys) {
    gatherer.request(stream::kKeys, task.k, keys);
    gatherer.request(stream::kValues, task.v, keys);
  }
};

// A tile of keys that walks over the queries which see them.
struct WalkOverQueries {
  static constexpr int kFirst = stream::kQueries, kSecond = stream::kGradients;

  static Visits visits(const BackwardTask& task) { return task.visits_of_keys(); }
  static void request_own(RowGatherer& gatherer, const BackwardTask& task) {
    gatherer.request(stream::kKeys, task.k, task.keys());
    gatherer.request(stream::kValues, task.v, task.keys());
  }
  static void request_visited(RowGatherer& gatherer, const BackwardTask& task, const TilePositions& queries) {
    gatherer.request(stream::kQueries, task.q, queries);
    gatherer.request(stream::kGradients, task.d_o, queries);
  }
};

// Queues a task's own rows and those of its first visit.
template <class Walk, class Task>
void request_task(RowGatherer& gatherer, const Task& task) {
  Visit first;
  Visits visits = Walk::visits(task);
  gatherer.begin(task.index);
  Walk::request_own(gatherer, task);
  if (visits.next(first)) Walk::request_visited(gatherer, task, first.tile);
}

// The walk of every kernel. Calls work(visit, first, second) for each visit of a task whose rows have been
// requested, with the visited rows of the walk's two streams as elements T. What comes next is queued before
// the work that hides it: the rows of the next visit, or those of `next`, the task that this thread takes
// next, unless that is null. Inlined, so that it is compiled with the instructions of the kernel around it.
template <class Walk, class T, class Task, class Work>
__attribute__((always_inline)) inline void for_visits(RowGatherer& gatherer, const Task& task,
                                                      const Task* next, const Work& work) {
  Visits visits = Walk::visits(task);
  Visit visit, upcoming;
  for (bool more = visits.next(visit); more; visit = upcoming) {
    gatherer.finish();
    const RowGatherer::Rows<T> first = gatherer.rows<T>(Walk::kFirst),
                               second = gatherer.rows<T>(Walk::kSecond);
    more = visits.next(upcoming);
    if (more)
      Walk::request_visited(gatherer, task, upcoming.tile);
    else if (next)
      request_task<Walk>(gatherer, *next);
    work(visit, first, second);
  }
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

// dq of the query tiles that key tiles met last; neighbouring key tiles meet the same ones.
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

// Tiles of all sequences and heads in one list, the last tile of a head first. Causal patterns make it the
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
  // False if `index` is beyond the list, or is that of a tile that its head's plan does not have.
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
