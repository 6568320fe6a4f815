#include "longstride/ops/cuda/attention_lists.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>

#include "longstride/device/cuda.h"
#include "longstride/ops/cuda/ops.h"

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
};

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
    offsets.push_back(static_cast<int>(runs.size()));
  }
  draft.offsets = image.append(offsets);
  draft.runs = image.append(runs);
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

struct GroupDraft {
  std::vector<Draft> queries, keys;
  size_t heads = 0;
  int head_count = 0;
};

// All lists of a plan as they will lie in GPU memory.
struct ListsDraft {
  Image image;
  std::vector<GroupDraft> groups;
  size_t masks_at = 0;
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
    std::vector<std::vector<Side>> by_query_order;
    for (size_t i = 0; i < pattern.passes.size(); ++i) {
      const Pass& pass = pattern.passes[i];
      const int first_mask = masks.append(plan.masks[p][i].masks);
      const Side queries{&pass, &plan.masks[p][i], true, first_mask};
      const auto same_order =
          std::find_if(by_query_order.begin(), by_query_order.end(),
                       [&](const auto& sides) { return sides.front().grid().order == queries.grid().order; });
      if (same_order == by_query_order.end())
        by_query_order.push_back({queries});
      else
        same_order->push_back(queries);
      group.keys.push_back(draft_sweep({{&pass, &plan.masks[p][i], false, first_mask}}, masks, image));
    }
    for (const auto& sides : by_query_order) group.queries.push_back(draft_sweep(sides, masks, image));
    if (pattern.passes.empty()) {
      group.queries.push_back(draft_nothing(plan.n, image));
      group.keys.push_back(draft_nothing(plan.n, image));
    }
  }
  lists.masks_at = image.append(masks.all());
  return lists;
}

}  // namespace

AttentionLists::AttentionLists(const AttentionPlan& plan, int device_index) {
  const ListsDraft lists = draft_lists(plan);
  const std::vector<char>& image = lists.image.bytes();
  buffer_ = Buffer(Device{DeviceKind::cuda, device_index}, static_cast<int64_t>(image.size()));
  cuda::copy(buffer_.data(), image.data(), buffer_.bytes());
  const auto at = [&](size_t offset) { return static_cast<const char*>(buffer_.data()) + offset; };
  masks_ = reinterpret_cast<const TileMask*>(at(lists.masks_at));
  const auto place = [&](const std::vector<Draft>& from) {
    std::vector<Sweep> sweeps;
    for (const Draft& draft : from) {
      Sweep& sweep = sweeps.emplace_back(draft.sweep);
      sweep.offsets = reinterpret_cast<const int*>(at(draft.offsets));
      sweep.runs = reinterpret_cast<const VisitRun*>(at(draft.runs));
    }
    return sweeps;
  };
  for (const GroupDraft& draft : lists.groups)
    groups_.push_back({place(draft.queries), place(draft.keys), reinterpret_cast<const int*>(at(draft.heads)),
                       draft.head_count});
}

std::shared_ptr<const AttentionLists> upload_lists(const AttentionPlan& plan, int device_index) {
  return std::make_shared<const AttentionLists>(plan, device_index);
}

int64_t attention_list_bytes(const AttentionPlan& plan) {
  return static_cast<int64_t>(draft_lists(plan).image.bytes().size());
}

}  // namespace longstride::cuda
