#include "longstride/pattern/visits.h"

#include <algorithm>
#include <limits>
#include <span>

#include "longstride/base/check.h"

namespace longstride {

CompactOrder::CompactOrder(const TileGrid& grid) {
  const TokenOrder& order = grid.order;
  n = static_cast<int>(order.n);
  const LaneSteps steps = order.lane(0);
  first = static_cast<int>(steps.first);
  leap = static_cast<int>(steps.leap);
  by_count = Divisor(static_cast<int>(steps.count));
  lane_length = static_cast<int>(order.lane_length());
  tiles_per_lane = static_cast<int>(grid.tiles_per_lane());
  by_tiles_per_lane = Divisor(tiles_per_lane);
  tiles = static_cast<int>(grid.count());
}

int VisitMasks::append(const std::vector<TileMask>& masks) {
  const int first = static_cast<int>(all_.size());
  all_.insert(all_.end(), masks.begin(), masks.end());
  return first;
}

int VisitMasks::full(int64_t queries, int64_t keys) {
  if (queries == kMaskTile && keys == kMaskTile) return kFull;
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

namespace {

// One side of a pass: the tiles that its tiles visit, and with which masks.
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

// Tiles that one half of a pair visits and that have the same state.
struct Stretch {
  int begin, end, mask;
};

std::vector<Stretch> stretches_of(const Side& side, int64_t tile, VisitMasks& masks) {
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

// The runs of a pair: the stretches of both halves, cut where either changes.
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

VisitSweep sweep_of(const std::vector<Side>& sides, VisitMasks& masks) {
  VisitSweep sweep;
  sweep.rows = sides.front().grid();
  for (const Side& side : sides) sweep.others.push_back(side.other());
  sweep.covers = sweep.rows.order.kind != TokenOrder::Kind::summary;
  sweep.pairs = static_cast<int>((sweep.rows.count() + 1) / 2);
  sweep.offsets = {0};
  for (int64_t pair = 0; pair < sweep.pairs; ++pair) {
    for (size_t p = 0; p < sides.size(); ++p)
      merge(stretches_of(sides[p], 2 * pair, masks), stretches_of(sides[p], 2 * pair + 1, masks),
            static_cast<int>(p), sweep.runs);
    LONGSTRIDE_CHECK(sweep.runs.size() < static_cast<size_t>(std::numeric_limits<int>::max()),
                     "the pattern has too many tiles for the GPU's lists; take a shorter context");
    int visits = 0;
    for (size_t r = static_cast<size_t>(sweep.offsets.back()); r < sweep.runs.size(); ++r) {
      const VisitRun& run = sweep.runs[r];
      visits += run.end - run.begin;
      sweep.closed = sweep.closed && run.begin >= 2 * pair && run.end <= 2 * pair + 2;
    }
    sweep.visits.push_back(visits);
    sweep.offsets.push_back(static_cast<int>(sweep.runs.size()));
  }
  sweep.closed = sweep.closed && sides.size() == 1 && sweep.rows.order == sweep.others.front().order;
  sweep.shared_tiles = count_shared(sides, sweep.runs);
  return sweep;
}

// Rows without visits, so that outputs are still written.
VisitSweep sweep_of_nothing(int64_t n) {
  VisitSweep sweep;
  sweep.rows = {{TokenOrder::Kind::natural, n}, kMaskTile};
  sweep.others = {sweep.rows};
  sweep.pairs = static_cast<int>((sweep.rows.count() + 1) / 2);
  sweep.offsets.assign(static_cast<size_t>(sweep.pairs + 1), 0);
  sweep.visits.assign(static_cast<size_t>(sweep.pairs), 0);
  return sweep;
}

}  // namespace

PlanVisits list_visits(const Plan& plan, const std::vector<TileMasks>& masks, VisitMasks& all) {
  LONGSTRIDE_CHECK(plan.n < int64_t{1} << 30, "{} positions, the GPU's attention takes up to 2^30 - 1",
                   plan.n);
  if (plan.passes.empty()) return {{sweep_of_nothing(plan.n)}, {sweep_of_nothing(plan.n)}};
  std::vector<std::vector<Side>> by_query_order, by_key_order;
  for (size_t i = 0; i < plan.passes.size(); ++i) {
    const Pass& pass = plan.passes[i];
    const int first_mask = all.append(masks[i].masks);
    const Side queries{&pass, &masks[i], true, first_mask};
    const auto same_order =
        std::find_if(by_query_order.begin(), by_query_order.end(),
                     [&](const auto& sides) { return sides.front().grid().order == queries.grid().order; });
    if (same_order == by_query_order.end())
      by_query_order.push_back({queries});
    else
      same_order->push_back(queries);
    by_key_order.push_back({{&pass, &masks[i], false, first_mask}});
  }
  PlanVisits visits;
  for (const std::vector<Side>& sides : by_query_order) visits.queries.push_back(sweep_of(sides, all));
  for (const std::vector<Side>& sides : by_key_order) visits.keys.push_back(sweep_of(sides, all));
  return visits;
}

}  // namespace longstride
