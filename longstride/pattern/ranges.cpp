#include "longstride/pattern/ranges.h"

#include <algorithm>
#include <numeric>

namespace longstride {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The offsets in a lane of `order` whose positions lie in [begin, end).
IndexRange offsets_between(const TokenOrder& order, int64_t lane, int64_t begin, int64_t end) {
  switch (order.kind) {
    case TokenOrder::Kind::natural:
      return {begin, end};
    case TokenOrder::Kind::summary:
      return {summary_rank(order.width, order.count, order.run, begin),
              summary_rank(order.width, order.count, order.run, end)};
    case TokenOrder::Kind::lanes:
      return {ceil_div(std::max<int64_t>(begin - lane, 0), order.width),
              ceil_div(std::max<int64_t>(end - lane, 0), order.width)};
  }
  return {};
}

// The keys of a summary in another order: block by block of the summary, or key by key where a lane has
// fewer keys than there are blocks.
void add_summary_holes(const Term& term, const TokenOrder& order, int64_t q, std::vector<IndexRange>& holes) {
  const int64_t lane = lane_of(order, q);
  const int64_t start = term.size - (term.run + 1) * term.count;
  if (order.kind == TokenOrder::Kind::lanes && term.size <= order.width) {
    const int64_t keys = q / order.width + 1;
    if (order.width % term.size == 0) {  // every key of a lane is at the same place of its block
      if (term.allows(q, lane)) holes.push_back({0, keys});
      return;
    }
    for (int64_t j = 0; j < keys; ++j)
      if (term.allows(q, j * order.width + lane)) holes.push_back({j, j + 1});
    return;
  }
  for (int64_t begin = start; begin <= q; begin += term.size)
    holes.push_back(offsets_between(order, lane, begin, std::min(begin + term.count, q + 1)));
}

// The keys of a stride (or dilation) in lanes of another width: those whose distance is a multiple of both
// widths.
void add_stride_holes(const Term& term, const TokenOrder& order, int64_t q, std::vector<IndexRange>& holes) {
  const int64_t step =
      term.size / std::gcd(term.size, order.width);  // in offsets; in positions step * order.width
  const int64_t last = q / order.width;
  for (int64_t j = last; j >= 0; j -= step) {
    if (!term.allows(q, q - (last - j) * order.width)) break;
    holes.push_back({j, j + 1});
  }
}

void add_holes(const Term& term, const TokenOrder& order, int64_t q, std::vector<IndexRange>& holes) {
  if (is_summary(term)) return add_summary_holes(term, order, q, holes);
  if (is_lanes(term)) return add_stride_holes(term, order, q, holes);
  const IndexRange positions = own_range(term, q);
  holes.push_back(offsets_between(order, lane_of(order, q), positions.begin, positions.end));
}

void sort_and_merge(std::vector<IndexRange>& ranges) {
  std::erase_if(ranges, [](const IndexRange& r) { return r.empty(); });
  if (ranges.size() < 2) return;
  std::sort(ranges.begin(), ranges.end(),
            [](const IndexRange& a, const IndexRange& b) { return a.begin < b.begin; });
  size_t last = 0;
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin <= ranges[last].end)
      ranges[last].end = std::max(ranges[last].end, ranges[i].end);
    else
      ranges[++last] = ranges[i];
  }
  ranges.resize(last + 1);
}

// About how many ranges add_holes makes of `term` for the last of n positions.
double holes_of(const Term& term, const TokenOrder& order, int64_t n) {
  const double positions = static_cast<double>(n);
  const bool by_lanes = order.kind == TokenOrder::Kind::lanes;
  if (is_summary(term)) {
    if (!by_lanes || term.size > order.width) return positions / static_cast<double>(term.size);
    return order.width % term.size == 0 ? 1 : positions / static_cast<double>(order.width);
  }
  if (!is_lanes(term)) return 1;
  const double apart = static_cast<double>(std::lcm(term.size, order.width));
  const double reach = static_cast<double>(term.size) * static_cast<double>(places_of(term));
  return 1 + std::min(positions, reach) / apart;
}

}  // namespace

double ranges_of_pass(const PassTerms& pass, int64_t n) {
  double last = pass.terms.count;
  for (int t = 0; t < pass.excluded.count; ++t) last += holes_of(pass.excluded.terms[t], pass.keys, n);
  return last * static_cast<double>(n) / 2;
}

int64_t places_of(const Term& term) {
  const int64_t reach = terms::visit(term.kind, [&](auto t) { return decltype(t)::reach(term); });
  return reach == terms::kUnlimited ? reach : (reach - 1) / term.size + 1;
}

TokenOrder query_order_of(const Term& term, int64_t n) {
  if (is_lanes(term)) return {TokenOrder::Kind::lanes, n, term.size};
  return {TokenOrder::Kind::natural, n};
}

TokenOrder key_order_of(const Term& term, int64_t n) {
  if (is_summary(term)) return {TokenOrder::Kind::summary, n, term.size, term.count, term.run};
  return query_order_of(term, n);
}

PassRanges::PassRanges(const Pattern& terms, const Pattern& excluded, const TokenOrder& keys)
    : terms_(terms), excluded_(excluded), keys_(keys) {}

const std::vector<IndexRange>& PassRanges::of(int64_t q) {
  ranges_.clear();
  for (int t = 0; t < terms_.count; ++t) ranges_.push_back(own_range(terms_.terms[t], q));
  sort_and_merge(ranges_);
  if (excluded_.count == 0 || ranges_.empty()) return ranges_;

  holes_.clear();
  for (int t = 0; t < excluded_.count; ++t) add_holes(excluded_.terms[t], keys_, q, holes_);
  sort_and_merge(holes_);
  if (holes_.empty()) return ranges_;

  left_.clear();
  size_t hole = 0;
  for (IndexRange range : ranges_) {
    while (hole < holes_.size() && holes_[hole].end <= range.begin) ++hole;
    for (; hole < holes_.size() && holes_[hole].begin < range.end; ++hole) {
      if (holes_[hole].begin > range.begin) left_.push_back({range.begin, holes_[hole].begin});
      range.begin = holes_[hole].end;
      if (range.begin >= range.end) break;  // the hole may reach into the next range
    }
    if (!range.empty()) left_.push_back(range);
  }
  return left_;
}

}  // namespace longstride
