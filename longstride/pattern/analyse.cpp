// Computes reach with sets of positions as bits. A term gives each query a range of keys whose ends only
// grow (ranges.h). So one walk over an order, with a sliding "or", carries the sets through a layer,
// whatever the term.
//
// Up to kExhaustive positions the sets are "which keys has this query seen so far", for all keys, some at a
// time. Beyond, they are "which of the sampled queries see this key", carried from the last layer to the
// first.
#include "longstride/pattern/analyse.h"

#include <algorithm>
#include <array>

#include "longstride/base/check.h"
#include "longstride/pattern/ranges.h"

namespace longstride {

namespace {

constexpr int64_t kExhaustive = 16384;
constexpr int64_t kSamples = 64;
constexpr int kWords = 8;  // keys that are followed at a time, in words of 64

template <int words>
struct Bits {
  std::array<uint64_t, words> word{};
  void operator|=(const Bits& other) {
    for (int w = 0; w < words; ++w) word[w] |= other.word[w];
  }
  void set(int64_t bit) { word[bit / 64] |= uint64_t{1} << bit % 64; }
  bool has(int64_t bit) const { return word[bit / 64] >> bit % 64 & 1; }
};

// The "or" of elements begin..end-1 of a sequence, for ranges that are not empty and whose ends never fall.
// Each element is read at most three times: there is one "or" of what came since the pivot, and one for each
// suffix before the pivot.
template <class Set, class ElementAt>
class SlidingOr {
 public:
  explicit SlidingOr(ElementAt element_at) : element_at_(element_at) {}

  Set over(int64_t begin, int64_t end) {
    for (; end_ < end; ++end_) since_pivot_ |= element_at_(end_);
    if (begin > pivot_) {
      pivot_ = end_;
      suffixes_begin_ = begin;
      suffixes_.resize(static_cast<size_t>(end_ - begin));
      Set suffix;
      for (int64_t i = end_; i-- > begin;) {
        suffix |= element_at_(i);
        suffixes_[static_cast<size_t>(i - begin)] = suffix;
      }
      since_pivot_ = Set{};
    }
    Set all = since_pivot_;
    if (begin < pivot_) all |= suffixes_[static_cast<size_t>(begin - suffixes_begin_)];
    return all;
  }

 private:
  ElementAt element_at_;
  int64_t end_ = 0;
  int64_t pivot_ = 0;
  int64_t suffixes_begin_ = 0;
  std::vector<Set> suffixes_;
  Set since_pivot_;
};

template <class Set, class ElementAt>
SlidingOr<Set, ElementAt> sliding_or(ElementAt element_at) {
  return SlidingOr<Set, ElementAt>(element_at);
}

// The positions in a lane, without the padding at its end.
int64_t positions_in_lane(const TokenOrder& order, int64_t lane) {
  if (order.kind != TokenOrder::Kind::lanes) return order.lane_length();
  return (order.n - lane + order.width - 1) / order.width;
}

// after[q] |= before[k] for each key k that the term allows q.
template <class Set>
void carry_to_queries(const Term& term, int64_t n, const std::vector<Set>& before, std::vector<Set>& after) {
  const TokenOrder queries = query_order_of(term, n), keys = key_order_of(term, n);
  for (int64_t lane = 0; lane < queries.lanes(); ++lane) {
    auto seen = sliding_or<Set>(
        [&](int64_t j) -> const Set& { return before[static_cast<size_t>(position_at(keys, lane, j))]; });
    for (int64_t i = 0; i < positions_in_lane(queries, lane); ++i) {
      const int64_t q = position_at(queries, lane, i);
      const IndexRange range = own_range(term, q);
      if (!range.empty()) after[static_cast<size_t>(q)] |= seen.over(range.begin, range.end);
    }
  }
}

// after[k] |= before[q] for each query q that the term allows to look at k.
template <class Set>
void carry_to_keys(const Term& term, int64_t n, const std::vector<Set>& before, std::vector<Set>& after) {
  const TokenOrder queries = query_order_of(term, n), keys = key_order_of(term, n);
  for (int64_t lane = 0; lane < queries.lanes(); ++lane) {
    auto seen_by = sliding_or<Set>(
        [&](int64_t i) -> const Set& { return before[static_cast<size_t>(position_at(queries, lane, i))]; });
    const int64_t query_count = positions_in_lane(queries, lane);
    const auto range_of = [&](int64_t i) { return own_range(term, position_at(queries, lane, i)); };
    int64_t begin = 0, end = 0;  // the queries whose range holds key j
    for (int64_t j = 0; j < positions_in_lane(keys, lane); ++j) {
      while (begin < query_count && range_of(begin).end <= j) ++begin;
      while (end < query_count && range_of(end).begin <= j) ++end;
      if (begin < end) after[static_cast<size_t>(position_at(keys, lane, j))] |= seen_by.over(begin, end);
    }
  }
}

// The terms of all heads of a layer, each once.
std::vector<Term> terms_of(const LayerPattern& layer, int64_t heads, int64_t n) {
  std::vector<Term> terms;
  for (int64_t head = 0; head < heads; ++head) {
    const Pattern pattern = simplify(layer.for_head(head, heads), n);
    for (int t = 0; t < pattern.count; ++t)
      if (std::find(terms.begin(), terms.end(), pattern.terms[t]) == terms.end())
        terms.push_back(pattern.terms[t]);
  }
  return terms;
}

// The keys that one query misses.
struct Blind {
  int64_t count = 0, first = -1, last = -1;
  void add(int64_t key) {
    if (count++ == 0) first = last = key;
    first = std::min(first, key);
    last = std::max(last, key);
  }
};

void note_worst(Reach& reach, int64_t query, const Blind& blind) {
  if (blind.count == 0 || blind.count < reach.blind_count) return;
  reach.blind_query = query;
  reach.blind_first = blind.first;
  reach.blind_last = blind.last;
  reach.blind_count = blind.count;
}

using LayerTerms = std::vector<std::vector<Term>>;  // by place in the cycle

// All queries, and all keys 64 * kWords at a time.
Reach reach_of_all(const LayerTerms& cycle, int64_t layers, int64_t n) {
  using Set = Bits<kWords>;
  Reach reach{.complete = true, .exhaustive = true, .layers = 1};
  std::vector<Blind> blind(static_cast<size_t>(n));
  std::vector<Set> seen, next;
  for (int64_t first = 0; first < n; first += 64 * kWords) {
    const int64_t last = std::min<int64_t>(first + 64 * kWords, n) - 1;
    Set wanted;
    for (int64_t k = first; k <= last; ++k) wanted.set(k - first);
    seen.assign(static_cast<size_t>(n), Set{});
    for (int64_t k = first; k <= last; ++k) seen[static_cast<size_t>(k)].set(k - first);

    const auto sees_all = [&](int64_t q) {
      const Set& set = seen[static_cast<size_t>(q)];
      if (q >= last) return set.word == wanted.word;
      for (int64_t k = first; k <= q; ++k)
        if (!set.has(k - first)) return false;
      return true;
    };
    int64_t q = first, done = 0;  // queries below q see all that they should, and keep it
    for (; done < layers && q < n; ++done) {
      next = seen;
      for (const Term& term : cycle[static_cast<size_t>(done) % cycle.size()])
        carry_to_queries(term, n, seen, next);
      seen.swap(next);
      while (q < n && sees_all(q)) ++q;
    }
    reach.layers = std::max(reach.layers, done);
    for (; q < n; ++q)
      for (int64_t k = first; k <= std::min(q, last); ++k)
        if (!seen[static_cast<size_t>(q)].has(k - first)) blind[static_cast<size_t>(q)].add(k);
  }
  for (int64_t q = 0; q < n; ++q) note_worst(reach, q, blind[static_cast<size_t>(q)]);
  reach.complete = reach.blind_count == 0;
  return reach;
}

// One query from each 64th of the sequence, not all at the same place of a block. The last position is among
// them.
std::vector<int64_t> sampled_queries(int64_t n) {
  std::vector<int64_t> queries;
  for (int64_t s = 0; s < kSamples; ++s) {
    const int64_t part = n / kSamples;
    queries.push_back(n - 1 - s * part - s * 7919 % part);
  }
  return queries;
}

Reach reach_of_sample(const LayerTerms& cycle, int64_t layers, int64_t n) {
  using Set = Bits<kSamples / 64>;
  const std::vector<int64_t> queries = sampled_queries(n);
  std::vector<Set> seen_by, next;
  const auto look_back = [&](int64_t depth) {
    seen_by.assign(static_cast<size_t>(n), Set{});
    for (size_t s = 0; s < queries.size(); ++s)
      seen_by[static_cast<size_t>(queries[s])].set(static_cast<int64_t>(s));
    for (int64_t layer = depth; layer-- > 0;) {
      next = seen_by;
      for (const Term& term : cycle[static_cast<size_t>(layer) % cycle.size()])
        carry_to_keys(term, n, seen_by, next);
      seen_by.swap(next);
    }
  };
  const auto worst_of = [&] {
    Reach reach;
    for (size_t s = 0; s < queries.size(); ++s) {
      Blind blind;
      for (int64_t k = 0; k <= queries[s]; ++k)
        if (!seen_by[static_cast<size_t>(k)].has(static_cast<int64_t>(s))) blind.add(k);
      note_worst(reach, queries[s], blind);
    }
    reach.complete = reach.blind_count == 0;
    return reach;
  };

  int64_t too_few = 0, depth = 1;  // most schedules are complete after two or three layers
  Reach reach;
  for (;; depth = std::min(2 * depth, layers)) {
    look_back(depth);
    reach = worst_of();
    if (reach.complete || depth == layers) break;
    too_few = depth;
  }
  reach.layers = depth;
  while (reach.complete && reach.layers - too_few > 1) {
    const int64_t middle = (too_few + reach.layers) / 2;
    look_back(middle);
    (worst_of().complete ? reach.layers : too_few) = middle;
  }
  return reach;
}

}  // namespace

namespace {

LayerTerms checked_cycle(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n) {
  LONGSTRIDE_CHECK(layers >= 1 && n >= 1, "reach needs at least 1 layer and 1 position, here {} and {}",
                   layers, n);
  LONGSTRIDE_CHECK(!schedule.cycle.empty(), "reach needs a schedule of at least 1 layer");
  check_heads(schedule, heads);
  LayerTerms cycle;
  for (const LayerPattern& layer : schedule.cycle) cycle.push_back(terms_of(layer, heads, n));
  return cycle;
}

}  // namespace

Reach analyse_reach(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n) {
  const LayerTerms cycle = checked_cycle(schedule, layers, heads, n);
  return n <= kExhaustive ? reach_of_all(cycle, layers, n) : reach_of_sample(cycle, layers, n);
}

ReceptiveFields receptive_fields(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n,
                                 int64_t most_positions) {
  using Set = Bits<kMostFieldPositions / 64>;
  const LayerTerms cycle = checked_cycle(schedule, layers, heads, n);
  const int64_t count = std::clamp<int64_t>(std::min(most_positions, n), 1, kMostFieldPositions);
  ReceptiveFields fields;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * n / count, room = (i + 1) * n / count - begin;
    fields.positions.push_back(begin + i * 7919 % room);
  }
  std::vector<Set> seen(static_cast<size_t>(n)), next;
  for (int64_t i = 0; i < count; ++i)
    seen[static_cast<size_t>(fields.positions[static_cast<size_t>(i)])].set(i);
  for (int64_t done = 0; done < layers; ++done) {
    next = seen;
    for (const Term& term : cycle[static_cast<size_t>(done) % cycle.size()])
      carry_to_queries(term, n, seen, next);
    seen.swap(next);
    std::vector<bool>& depth = fields.depth.emplace_back();
    bool complete = true;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < count; ++j) {
        depth.push_back(seen[static_cast<size_t>(fields.positions[static_cast<size_t>(i)])].has(j));
        complete &= j > i || depth.back();
      }
    if (complete) break;
  }
  return fields;
}

std::string describe(const Reach& reach, int64_t n) {
  const auto layers = [&] { return fmt::format("{} layer{}", reach.layers, reach.layers == 1 ? "" : "s"); };
  if (reach.complete)
    return fmt::format(
        "{} sees every earlier one within {}",
        reach.exhaustive ? "every position" : fmt::format("each of {} sampled positions", kSamples),
        layers());
  const std::string which = reach.blind_count == 1 ? fmt::format("position {}", reach.blind_first)
                            : reach.blind_count == reach.blind_last - reach.blind_first + 1
                                ? fmt::format("{} earlier positions ({}..{})", reach.blind_count,
                                              reach.blind_first, reach.blind_last)
                                : fmt::format("{} earlier positions (among {}..{})", reach.blind_count,
                                              reach.blind_first, reach.blind_last);
  return fmt::format("within {}{}, position {} cannot see {}", reach.layers == 1 ? "" : "all ", layers(),
                     reach.blind_query, which);
}

double mean_keys(const LayerPattern& layer, int64_t heads, int64_t n) {
  LONGSTRIDE_CHECK(heads >= 1, "heads is {}, must be at least 1", heads);
  double pairs = 0;
  std::vector<std::pair<Pattern, int64_t>> counted;
  for (int64_t head = 0; head < heads; ++head) {
    const Pattern pattern = layer.for_head(head, heads);
    auto known =
        std::find_if(counted.begin(), counted.end(), [&](const auto& c) { return c.first == pattern; });
    if (known == counted.end()) known = counted.insert(counted.end(), {pattern, count_pairs(pattern, n)});
    pairs += static_cast<double>(known->second);
  }
  return pairs / static_cast<double>(heads) / static_cast<double>(n);
}

}  // namespace longstride
