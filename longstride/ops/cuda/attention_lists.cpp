#include "longstride/ops/cuda/attention_lists.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "longstride/device/cuda.h"

namespace longstride::cuda {

namespace {

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

// A sweep before its lists have a place in GPU memory.
struct Draft {
  Sweep sweep;
  const VisitSweep* lists = nullptr;
  size_t offsets = 0, runs = 0;
};

Draft draft_sweep(const VisitSweep& lists, Image& image) {
  Draft draft;
  draft.lists = &lists;
  draft.sweep.rows = CompactOrder(lists.rows);
  for (size_t p = 0; p < lists.others.size(); ++p) draft.sweep.others[p] = CompactOrder(lists.others[p]);
  draft.sweep.pairs = lists.pairs;
  draft.sweep.covers = lists.covers;
  draft.offsets = image.append(lists.offsets);
  // Kernels may read the first run before they know that there is none.
  draft.runs = image.append(lists.runs.empty() ? std::vector<VisitRun>(1) : lists.runs);
  return draft;
}

// ---- rounds of Hopper's kernels ----

struct RoundDraft {
  Round round;
  Draft queries, keys;
  size_t items = 0, first_pairs = 0;
};

bool boxes_can_serve(const VisitSweep& lists) {
  const auto serve = [](const TileGrid& grid) { return BoxOrder(grid).box_rows >= kFewestBoxRows; };
  return lists.others.size() <= static_cast<size_t>(kMostBoxPasses) && serve(lists.rows) &&
         std::all_of(lists.others.begin(), lists.others.end(), serve);
}

BoxSweep box_sweep(const Draft& draft) {
  const VisitSweep& lists = *draft.lists;
  BoxSweep sweep;
  sweep.sweep = draft.sweep;
  sweep.rows = BoxOrder(lists.rows);
  sweep.row_order = lists.rows.order;
  sweep.passes = static_cast<int>(lists.others.size());
  for (size_t p = 0; p < lists.others.size(); ++p) {
    sweep.others[p] = BoxOrder(lists.others[p]);
    sweep.other_orders[p] = lists.others[p].order;
  }
  return sweep;
}

const std::vector<int>& visits_of(const Draft& draft) {
  static const std::vector<int> none;
  return draft.lists != nullptr ? draft.lists->visits : none;
}
int shared_tiles_of(const Draft& draft) { return draft.lists != nullptr ? draft.lists->shared_tiles : 0; }

double mean_visits(const Draft& draft) {
  const std::vector<int>& visits = visits_of(draft);
  const double sum = std::accumulate(visits.begin(), visits.end(), 0.0);
  return visits.empty() ? 0 : sum / static_cast<double>(visits.size());
}

constexpr double kLongList = 16;  // visits of a pair, by measurement

void draft_items(RoundDraft& draft, Image& image) {
  std::vector<WorkItem> items;
  const std::vector<int>&queries = visits_of(draft.queries), &keys = visits_of(draft.keys);
  for (size_t i = 0; i < std::max(queries.size(), keys.size()); ++i) {
    if (i < keys.size()) items.push_back({static_cast<int>(i), keys[i], 1});
    if (i < queries.size()) items.push_back({static_cast<int>(i), queries[i], 0});
  }
  draft.round.shared_tiles = shared_tiles_of(draft.queries) + shared_tiles_of(draft.keys);
  if (std::max(mean_visits(draft.queries), mean_visits(draft.keys)) >= kLongList)
    std::stable_sort(items.begin(), items.end(),
                     [](const WorkItem& a, const WorkItem& b) { return a.visits > b.visits; });
  draft.items = image.append(items);
  draft.round.item_count = static_cast<int>(items.size());
}

std::vector<RoundDraft> draft_forward(const std::vector<Draft>& queries, Image& image) {
  std::vector<RoundDraft> rounds;
  for (const Draft& sweep : queries) {
    RoundDraft& draft = rounds.emplace_back();
    draft.queries = sweep;
    draft.round.queries = box_sweep(draft.queries);
    draft.round.has_queries = true;
    draft_items(draft, image);
  }
  return rounds;
}

// A round for each keys' sweep. Queries' sweeps stand beside the last ones, which have the long lists of a
// pattern with summaries: the short tasks of one side fill up what the long ones of the other leave.
std::vector<RoundDraft> draft_backward(const std::vector<Draft>& queries, const std::vector<Draft>& keys,
                                       Image& image) {
  std::vector<RoundDraft> rounds(keys.size());
  const size_t first = keys.size() - queries.size();  // a queries' sweep is one pass or more
  for (size_t r = 0; r < keys.size(); ++r) {
    RoundDraft& draft = rounds[r];
    draft.keys = keys[r];
    draft.round.keys = box_sweep(draft.keys);
    draft.round.has_keys = true;
    if (r >= first) {
      draft.queries = queries[r - first];
      draft.round.queries = box_sweep(draft.queries);
      draft.round.has_queries = true;
    }
    draft_items(draft, image);
  }
  return rounds;
}

// For each tile of queries the last pair of keys that visits it; nothing where others than all pairs from there
// down to the first one do.
std::optional<std::vector<int>> first_pairs_of(const VisitSweep& keys) {
  struct Visitors {
    int first = std::numeric_limits<int>::max(), last = -1, count = 0;
  };
  std::vector<Visitors> tiles(static_cast<size_t>(keys.others.front().count()));
  for (int pair = 0; pair < keys.pairs; ++pair)
    for (int r = keys.offsets[static_cast<size_t>(pair)]; r < keys.offsets[static_cast<size_t>(pair) + 1];
         ++r) {
      const VisitRun& run = keys.runs[static_cast<size_t>(r)];
      for (int tile = run.begin; tile < run.end; ++tile) {
        Visitors& visitors = tiles[static_cast<size_t>(tile)];
        visitors.first = std::min(visitors.first, pair), visitors.last = pair;
        ++visitors.count;
      }
    }
  std::vector<int> last;
  for (const Visitors& visitors : tiles) {
    if (visitors.count > 0 && visitors.count != visitors.last - visitors.first + 1) return std::nullopt;
    last.push_back(visitors.last);
  }
  return last;
}

// Pairs of keys from the last to the first: the order in which their sums are added.
void draft_ordered_items(RoundDraft& draft, Image& image) {
  const std::vector<int>& visits = visits_of(draft.keys);
  std::vector<WorkItem> items;
  for (size_t i = visits.size(); i-- > 0;) items.push_back({static_cast<int>(i), visits[i], 1});
  draft.round.shared_tiles = shared_tiles_of(draft.keys);
  draft.items = image.append(items);
  draft.round.item_count = static_cast<int>(items.size());
}

std::vector<RoundDraft> draft_by_keys(const std::vector<Draft>& keys, Image& image) {
  std::vector<RoundDraft> rounds;
  for (const Draft& sweep : keys) {
    const bool closed = rounds.empty() && sweep.lists->closed && sweep.lists->covers;
    RoundDraft& draft = rounds.emplace_back();
    draft.keys = sweep;
    draft.round.keys = box_sweep(draft.keys);
    draft.round.has_keys = true;
    draft.round.closed = closed;
    if (closed) {
      draft_items(draft, image);
      continue;
    }
    const auto first_pairs = first_pairs_of(*sweep.lists);
    if (!first_pairs) return {};
    draft_ordered_items(draft, image);
    draft.first_pairs = image.append(*first_pairs);
  }
  return rounds;
}

// ---- all of a plan ----

struct GroupDraft {
  std::vector<Draft> queries, keys;
  std::vector<RoundDraft> forward, backward, by_keys;
  ListLengths lengths;
  size_t heads = 0;
  int head_count = 0;
};

// All lists of a plan as they will lie in GPU memory.
struct ListsDraft {
  Image image;
  std::vector<PlanVisits> visits;  // by plan; drafts point into them
  std::vector<GroupDraft> groups;
  size_t masks_at = 0, counters_at = 0;
};

ListsDraft draft_lists(const AttentionPlan& plan) {
  ListsDraft lists;
  Image& image = lists.image;
  VisitMasks masks;
  for (size_t p = 0; p < plan.plans.size(); ++p)
    lists.visits.push_back(list_visits(plan.plans[p], plan.masks[p], masks));
  for (size_t p = 0; p < plan.plans.size(); ++p) {
    GroupDraft& group = lists.groups.emplace_back();
    std::vector<int> heads;
    for (size_t h = 0; h < plan.plan_of_head.size(); ++h)
      if (plan.plan_of_head[h] == static_cast<int>(p)) heads.push_back(static_cast<int>(h));
    group.heads = image.append(heads);
    group.head_count = static_cast<int>(heads.size());

    const PlanVisits& visits = lists.visits[p];
    for (const VisitSweep& sweep : visits.queries) group.queries.push_back(draft_sweep(sweep, image));
    for (const VisitSweep& sweep : visits.keys) group.keys.push_back(draft_sweep(sweep, image));
    if (plan.plans[p].passes.empty() ||
        !std::all_of(visits.queries.begin(), visits.queries.end(), boxes_can_serve) ||
        !std::all_of(visits.keys.begin(), visits.keys.end(), boxes_can_serve))
      continue;
    group.forward = draft_forward(group.queries, image);
    group.backward = draft_backward(group.queries, group.keys, image);
    group.by_keys = draft_by_keys(group.keys, image);
    group.lengths = list_lengths(plan.plans[p]);
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
    if (round.has_keys && !round.has_queries)
      round.first_pairs = reinterpret_cast<const int*>(at(draft.first_pairs));
    return round;
  };
  for (const GroupDraft& draft : lists.groups) {
    HeadGroup& group = groups_.emplace_back();
    for (const Draft& sweep : draft.queries) group.queries.push_back(place(sweep));
    for (const Draft& sweep : draft.keys) group.keys.push_back(place(sweep));
    for (const RoundDraft& round : draft.forward) group.forward.push_back(place_round(round));
    for (const RoundDraft& round : draft.backward) group.backward.push_back(place_round(round));
    for (const RoundDraft& round : draft.by_keys) group.by_keys.push_back(place_round(round));
    group.lengths = draft.lengths;
    group.heads = reinterpret_cast<const int*>(at(draft.heads));
    group.head_count = draft.head_count;
  }
}

ListLengths list_lengths(const Plan& plan) {
  ListLengths most;
  for (const Pass& pass : plan.passes) {
    ListLengths lengths;
    for (int64_t tile = 0; tile < pass.keys.count(); ++tile) {
      double visits = 0;
      for (const TileRun& run : pass.columns.of(tile)) visits += run.end - run.begin;
      lengths.total += visits;
      lengths.longest = std::max(lengths.longest, visits);
    }
    lengths.mean = lengths.total / static_cast<double>(std::max<int64_t>(pass.keys.count(), 1));
    if (lengths.mean > most.mean) most = lengths;
  }
  return most;
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
