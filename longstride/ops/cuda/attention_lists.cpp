#include "longstride/ops/cuda/attention_lists.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include "longstride/device/cuda.h"

namespace longstride::cuda {

namespace {

DeviceOrder order_of(const TileGrid& grid) {
  const TokenOrder& order = grid.order;
  DeviceOrder result;
  result.n = static_cast<int>(order.n);
  int64_t block = std::numeric_limits<int>::max();  // natural order never leaves its first
  if (order.kind != TokenOrder::Kind::natural) {
    block = order.kind == TokenOrder::Kind::lanes ? 1 : order.count;
    result.leap = static_cast<int>(order.width - block);
  }
  if (order.kind == TokenOrder::Kind::summary)
    result.first = static_cast<int>(order.width - (order.run + 1) * order.count);
  result.by_count = Divisor(static_cast<int>(block));
  result.lane_length = static_cast<int>(order.lane_length());
  result.tiles_per_lane = static_cast<int>(grid.tiles_per_lane());
  result.by_tiles_per_lane = Divisor(result.tiles_per_lane);
  result.tiles = static_cast<int>(grid.count());
  return result;
}

TileGrid natural_grid(int64_t n) { return {{TokenOrder::Kind::natural, n}, kTile}; }

// Hands out places in one block of memory that is filled here and copied to the GPU once.
class Image {
 public:
  template <class T>
  size_t append(const std::vector<T>& values) {
    const size_t at = (bytes_.size() + 31) / 32 * 32;
    bytes_.resize(at + values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    return at;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

// One side of a pass: what its tiles visit, and with which masks.
struct Side {
  const Pass* pass;
  const TileMasks* masks;
  bool rows_are_queries;
  int first_mask;  // of the pass among all
  const TileGrid& grid() const { return rows_are_queries ? pass->queries : pass->keys; }
  const TileGrid& other() const { return rows_are_queries ? pass->keys : pass->queries; }
  std::span<const TileRun> runs(int64_t tile) const {
    return (rows_are_queries ? pass->rows : pass->columns).of(tile);
  }
  std::span<const int32_t> ids(int64_t tile) const {
    return rows_are_queries ? masks->of_row(tile) : masks->of_column(tile);
  }
};

// Masks of all passes, and those of full tiles at an end, which have fewer rows than a tile has room for.
class Masks {
 public:
  int append(const std::vector<TileMask>& masks) {
    const int first = static_cast<int>(all_.size());
    all_.insert(all_.end(), masks.begin(), masks.end());
    return first;
  }
  // A full tile of this many queries and keys.
  int full(int64_t queries, int64_t keys) {
    if (queries == kTile && keys == kTile) return kFull;
    const auto [found, added] = ends_.try_emplace({queries, keys}, static_cast<int>(all_.size()));
    if (added) {
      TileMask mask;
      const auto low = [](int64_t bits) { return bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1; };
      std::fill_n(mask.rows.begin(), queries, low(keys));
      std::fill_n(mask.columns.begin(), keys, low(queries));
      all_.push_back(mask);
    }
    return found->second;
  }
  const std::vector<TileMask>& all() const { return all_; }

 private:
  std::vector<TileMask> all_;
  std::map<std::pair<int64_t, int64_t>, int> ends_;
};

// Tiles that one half of a pair visits in one state.
struct Stretch {
  int begin, end, mask;
};

std::vector<Stretch> stretches_of(const Side& side, int64_t tile, Masks& masks) {
  std::vector<Stretch> stretches;
  if (tile >= side.grid().count()) return stretches;
  const std::span<const int32_t> ids = side.ids(tile);
  const int64_t own = side.grid().size(tile);
  size_t next = 0;
  for (const TileRun& run : side.runs(tile)) {
    if (!run.full) {
      for (int t = run.begin; t < run.end; ++t)
        stretches.push_back({t, t + 1, side.first_mask + ids[next++]});
      continue;
    }
    // Only the last tile of a lane is shorter than the others.
    for (int t = run.begin; t < run.end;) {
      const int64_t size = side.other().size(t);
      const int64_t per_lane = side.other().tiles_per_lane();
      const int last_of_lane = static_cast<int>(t / per_lane * per_lane + per_lane - 1);
      int end = std::min(run.end, t + 1);
      if (t < last_of_lane) end = std::max(end, std::min(run.end, last_of_lane));
      stretches.push_back({t, end, side.rows_are_queries ? masks.full(own, size) : masks.full(size, own)});
      t = end;
    }
  }
  return stretches;
}

// The runs of a pair: both halves' stretches, cut where either changes.
void merge(const std::vector<Stretch>& a, const std::vector<Stretch>& b, int pass,
           std::vector<VisitRun>& runs) {
  constexpr int kNone = std::numeric_limits<int>::max();
  size_t i = 0, j = 0;
  int at = 0;
  while (i < a.size() || j < b.size()) {
    const int begin =
        std::max(at, std::min(i < a.size() ? a[i].begin : kNone, j < b.size() ? b[j].begin : kNone));
    const bool in_a = i < a.size() && a[i].begin <= begin, in_b = j < b.size() && b[j].begin <= begin;
    int end = kNone;
    if (i < a.size()) end = std::min(end, in_a ? a[i].end : a[i].begin);
    if (j < b.size()) end = std::min(end, in_b ? b[j].end : b[j].begin);
    runs.push_back({begin, end, {in_a ? a[i].mask : kAbsent, in_b ? b[j].mask : kAbsent}, pass});
    at = end;
    if (in_a && a[i].end == end) ++i;
    if (in_b && b[j].end == end) ++j;
  }
}

// A sweep before its lists have a place in GPU memory.
struct Draft {
  Sweep sweep;
  size_t offsets = 0, runs = 0;
  std::vector<int> visits;  // by pair
  int shared_tiles = 0;     // visited by many pairs
  bool closed = true;       // pairs visit nothing but their own tiles
};

// Tiles that more than kFewVisits pairs visit.
int count_shared(const std::vector<Side>& sides, const std::vector<VisitRun>& runs) {
  constexpr int kFewVisits = 4;
  int shared = 0;
  for (size_t p = 0; p < sides.size(); ++p) {
    std::vector<int> steps(static_cast<size_t>(sides[p].other().count() + 1), 0);
    for (const VisitRun& run : runs)
      if (run.pass == static_cast<int>(p))
        ++steps[static_cast<size_t>(run.begin)], --steps[static_cast<size_t>(run.end)];
    int visits = 0;
    for (const int step : steps) shared += (visits += step) > kFewVisits ? 1 : 0;
  }
  return shared;
}

Draft draft_sweep(const std::vector<Side>& sides, Masks& masks, Image& image) {
  Draft draft;
  const TileGrid& grid = sides.front().grid();
  draft.sweep.rows = order_of(grid);
  draft.sweep.covers = grid.order.kind != TokenOrder::Kind::summary;
  draft.sweep.pairs = static_cast<int>((grid.count() + 1) / 2);
  std::vector<int> offsets{0};
  std::vector<VisitRun> runs;
  for (size_t p = 0; p < sides.size(); ++p) draft.sweep.others[p] = order_of(sides[p].other());
  for (int64_t pair = 0; pair < draft.sweep.pairs; ++pair) {
    for (size_t p = 0; p < sides.size(); ++p)
      merge(stretches_of(sides[p], 2 * pair, masks), stretches_of(sides[p], 2 * pair + 1, masks),
            static_cast<int>(p), runs);
    LONGSTRIDE_CHECK(runs.size() < static_cast<size_t>(std::numeric_limits<int>::max()),
                     "the pattern has too many tiles for the GPU's lists; take a shorter context");
    int visits = 0;
    for (size_t r = static_cast<size_t>(offsets.back()); r < runs.size(); ++r) {
      visits += runs[r].end - runs[r].begin;
      draft.closed = draft.closed && runs[r].begin >= 2 * pair && runs[r].end <= 2 * pair + 2;
    }
    draft.visits.push_back(visits);
    offsets.push_back(static_cast<int>(runs.size()));
  }
  draft.closed = draft.closed && sides.size() == 1 && grid.order == sides.front().other().order;
  draft.offsets = image.append(offsets);
  draft.runs = image.append(runs);
  draft.shared_tiles = count_shared(sides, runs);
  return draft;
}

// A pattern that allows nothing: rows without visits, so that outputs are still written.
Draft draft_nothing(int64_t n, Image& image) {
  Draft draft;
  const TileGrid grid = natural_grid(n);
  draft.sweep.rows = draft.sweep.others[0] = order_of(grid);
  draft.sweep.pairs = static_cast<int>((grid.count() + 1) / 2);
  draft.offsets = image.append(std::vector<int>(static_cast<size_t>(draft.sweep.pairs + 1), 0));
  draft.runs = image.append(std::vector<VisitRun>(1));
  return draft;
}

// ---- rounds of Hopper's kernels ----

struct RoundDraft {
  Round round;
  Draft queries, keys;
  size_t items = 0;
};

// Passes of one row order and their drafts.
struct SweepSides {
  std::vector<Side> sides;
  Draft draft;
};

BoxOrder box_order_of(const TileGrid& grid) {
  const TokenOrder& order = grid.order;
  BoxOrder box;
  box.kind = order.kind;
  box.tiles_per_lane = static_cast<int>(grid.tiles_per_lane());
  box.by_tiles_per_lane = Divisor(box.tiles_per_lane);
  constexpr int kNever = std::numeric_limits<int>::max();
  if (order.kind == TokenOrder::Kind::lanes)
    box.split = order.n % order.width == 0 ? kNever : static_cast<int>(order.n % order.width);
  if (order.kind == TokenOrder::Kind::summary) {
    box.count = static_cast<int>(order.count);
    box.by_count = Divisor(box.count);
    box.box_rows = static_cast<int>(std::gcd(order.count, int64_t{kTile}));
    const bool ends_in_run = order.lane_length() % order.count != 0;
    box.split = ends_in_run ? static_cast<int>(order.n / order.width) : kNever;
  }
  return box;
}

bool boxes_can_serve(const std::vector<Side>& sides) {
  if (sides.size() > static_cast<size_t>(kMostBoxPasses)) return false;
  return std::all_of(sides.begin(), sides.end(), [](const Side& side) {
    return box_order_of(side.grid()).box_rows >= kFewestBoxRows &&
           box_order_of(side.other()).box_rows >= kFewestBoxRows;
  });
}

BoxSweep box_sweep(const std::vector<Side>& sides, const Draft& draft) {
  BoxSweep sweep;
  sweep.sweep = draft.sweep;
  sweep.rows = box_order_of(sides.front().grid());
  sweep.row_order = sides.front().grid().order;
  sweep.passes = static_cast<int>(sides.size());
  for (size_t p = 0; p < sides.size(); ++p) {
    sweep.others[p] = box_order_of(sides[p].other());
    sweep.other_orders[p] = sides[p].other().order;
  }
  return sweep;
}

double mean_visits(const Draft& draft) {
  const double sum = std::accumulate(draft.visits.begin(), draft.visits.end(), 0.0);
  return draft.visits.empty() ? 0 : sum / static_cast<double>(draft.visits.size());
}

constexpr double kLongList = 16;  // visits of a pair, by measurement

void draft_items(RoundDraft& draft, Image& image) {
  std::vector<WorkItem> items;
  const size_t queries = draft.queries.visits.size(), keys = draft.keys.visits.size();
  for (size_t i = 0; i < std::max(queries, keys); ++i) {
    if (i < keys) items.push_back({static_cast<int>(i), draft.keys.visits[i], 1});
    if (i < queries) items.push_back({static_cast<int>(i), draft.queries.visits[i], 0});
  }
  draft.round.shared_tiles = draft.queries.shared_tiles + draft.keys.shared_tiles;
  if (std::max(mean_visits(draft.queries), mean_visits(draft.keys)) >= kLongList)
    std::stable_sort(items.begin(), items.end(),
                     [](const WorkItem& a, const WorkItem& b) { return a.visits > b.visits; });
  draft.items = image.append(items);
  draft.round.item_count = static_cast<int>(items.size());
}

std::vector<RoundDraft> draft_forward(const std::vector<SweepSides>& queries, Image& image) {
  std::vector<RoundDraft> rounds;
  for (const SweepSides& sweep : queries) {
    RoundDraft& draft = rounds.emplace_back();
    draft.queries = sweep.draft;
    draft.round.queries = box_sweep(sweep.sides, draft.queries);
    draft.round.has_queries = true;
    draft_items(draft, image);
  }
  return rounds;
}

// A round for each keys' sweep. Queries' sweeps stand beside the last ones, which have the long lists of a
// pattern with summaries: the short tasks of one side fill up what the long ones of the other leave.
std::vector<RoundDraft> draft_backward(const std::vector<SweepSides>& queries,
                                       const std::vector<SweepSides>& keys, Image& image) {
  std::vector<RoundDraft> rounds(keys.size());
  const size_t first = keys.size() - queries.size();  // a queries' sweep is one pass or more
  for (size_t r = 0; r < keys.size(); ++r) {
    RoundDraft& draft = rounds[r];
    draft.keys = keys[r].draft;
    draft.round.keys = box_sweep(keys[r].sides, draft.keys);
    draft.round.has_keys = true;
    if (r >= first) {
      draft.queries = queries[r - first].draft;
      draft.round.queries = box_sweep(queries[r - first].sides, draft.queries);
      draft.round.has_queries = true;
    }
    draft_items(draft, image);
  }
  return rounds;
}

// ---- all of a plan ----

struct GroupDraft {
  std::vector<Draft> queries, keys;
  std::vector<RoundDraft> forward, backward, closed;
  size_t heads = 0;
  int head_count = 0;
};

// All lists of a plan as they will lie in GPU memory.
struct ListsDraft {
  Image image;
  std::vector<GroupDraft> groups;
  size_t masks_at = 0, counters_at = 0;
};

ListsDraft draft_lists(const AttentionPlan& plan) {
  LONGSTRIDE_CHECK(plan.n < int64_t{1} << 30, "{} positions, the GPU's attention takes up to 2^30 - 1",
                   plan.n);
  ListsDraft lists;
  Image& image = lists.image;
  Masks masks;
  for (size_t p = 0; p < plan.plans.size(); ++p) {
    GroupDraft& group = lists.groups.emplace_back();
    std::vector<int> heads;
    for (size_t h = 0; h < plan.plan_of_head.size(); ++h)
      if (plan.plan_of_head[h] == static_cast<int>(p)) heads.push_back(static_cast<int>(h));
    group.heads = image.append(heads);
    group.head_count = static_cast<int>(heads.size());

    const Plan& pattern = plan.plans[p];
    std::vector<SweepSides> by_query_order, by_key_order;
    for (size_t i = 0; i < pattern.passes.size(); ++i) {
      const Pass& pass = pattern.passes[i];
      const int first_mask = masks.append(plan.masks[p][i].masks);
      const Side queries{&pass, &plan.masks[p][i], true, first_mask};
      const auto same_order = std::find_if(
          by_query_order.begin(), by_query_order.end(),
          [&](const SweepSides& sweep) { return sweep.sides.front().grid().order == queries.grid().order; });
      if (same_order == by_query_order.end())
        by_query_order.push_back({{queries}, {}});
      else
        same_order->sides.push_back(queries);
      by_key_order.push_back({{{&pass, &plan.masks[p][i], false, first_mask}}, {}});
    }
    bool boxes = !pattern.passes.empty();
    for (auto* sweeps : {&by_query_order, &by_key_order})
      for (SweepSides& sweep : *sweeps) {
        sweep.draft = draft_sweep(sweep.sides, masks, image);
        (sweeps == &by_query_order ? group.queries : group.keys).push_back(sweep.draft);
        boxes = boxes && boxes_can_serve(sweep.sides);
      }
    if (boxes) {
      group.forward = draft_forward(by_query_order, image);
      group.backward = draft_backward(by_query_order, by_key_order, image);
      if (by_query_order.size() == 1 && by_query_order.front().draft.closed)
        group.closed = draft_backward({}, by_key_order, image);
    }
    if (pattern.passes.empty()) {
      group.queries.push_back(draft_nothing(plan.n, image));
      group.keys.push_back(draft_nothing(plan.n, image));
    }
  }
  lists.masks_at = image.append(masks.all());
  lists.counters_at = image.append(std::vector<int>{0, 0});
  return lists;
}

}  // namespace

AttentionLists::AttentionLists(const AttentionPlan& plan, int device_index) {
  const ListsDraft lists = draft_lists(plan);
  const std::vector<char>& image = lists.image.bytes();
  buffer_ = Buffer(Device{DeviceKind::cuda, device_index}, static_cast<int64_t>(image.size()));
  copy(buffer_.data(), image.data(), buffer_.bytes());
  const auto at = [&](size_t offset) { return static_cast<const char*>(buffer_.data()) + offset; };
  masks_ = reinterpret_cast<const TileMask*>(at(lists.masks_at));
  counters_ = reinterpret_cast<int*>(static_cast<char*>(buffer_.data()) + lists.counters_at);
  const auto place = [&](const Draft& draft) {
    Sweep sweep = draft.sweep;
    sweep.offsets = reinterpret_cast<const int*>(at(draft.offsets));
    sweep.runs = reinterpret_cast<const VisitRun*>(at(draft.runs));
    return sweep;
  };
  const auto place_round = [&](const RoundDraft& draft) {
    Round round = draft.round;
    if (round.has_queries) round.queries.sweep = place(draft.queries);
    if (round.has_keys) round.keys.sweep = place(draft.keys);
    round.items = reinterpret_cast<const WorkItem*>(at(draft.items));
    return round;
  };
  for (const GroupDraft& draft : lists.groups) {
    HeadGroup& group = groups_.emplace_back();
    for (const Draft& sweep : draft.queries) group.queries.push_back(place(sweep));
    for (const Draft& sweep : draft.keys) group.keys.push_back(place(sweep));
    for (const RoundDraft& round : draft.forward) group.forward.push_back(place_round(round));
    for (const RoundDraft& round : draft.backward) group.backward.push_back(place_round(round));
    for (const RoundDraft& round : draft.closed) group.closed.push_back(place_round(round));
    group.heads = reinterpret_cast<const int*>(at(draft.heads));
    group.head_count = draft.head_count;
  }
}

template <>
void compute(const OpContext& context, const ListTiles& t) {
  if (t.lists == nullptr) {
    *t.bytes = static_cast<int64_t>(draft_lists(t.plan).image.bytes().size());
    return;
  }
  const auto lists = std::make_shared<const AttentionLists>(t.plan, context.device.index);
  *t.bytes = lists->bytes();
  *t.lists = lists;
}

}  // namespace longstride::cuda
