// The keys of one query as ranges of indices, pass by pass.
//
// A query at position q looks into one lane of the key order: lane q mod l of a lanes order, else the only
// one. A range counts offsets in that lane. All ranges end at or before q itself, so they do not depend on
// the sequence's length.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/pattern/plan.h"

namespace longstride {

// The orders of queries and of keys in which `term` gives each query one range.
TokenOrder query_order_of(const Term& term, int64_t n);
TokenOrder key_order_of(const Term& term, int64_t n);

// The most places of a query's lane whose keys it sees, for a stride or dilation.
int64_t places_of(const Term& term);

inline int64_t lane_of(const TokenOrder& order, int64_t position) {
  return order.kind == TokenOrder::Kind::lanes ? position % order.width : 0;
}
inline int64_t position_at(const TokenOrder& order, int64_t lane, int64_t offset) {
  return order.lane(lane).position(offset);
}

// The keys that a query sees in one pass: those of the pass's terms without those of the excluded terms.
class PassRanges {
 public:
  // All of `terms` must have the key order `keys`.
  PassRanges(const Pattern& terms, const Pattern& excluded, const TokenOrder& keys);

  // The ranges are ascending, disjoint, not empty and not adjacent. Valid until the next call. For most
  // pairs of terms there are one or two. Where a stride or a summary excludes another of an unrelated width,
  // there are as many as the two sets meet.
  const std::vector<IndexRange>& of(int64_t q);

 private:
  Pattern terms_, excluded_;
  TokenOrder keys_;
  std::vector<IndexRange> ranges_, holes_, left_;
};

// `pattern` in its plainest form over n positions: heads resolved, terms that others contain dropped, and
// terms that equal a simpler one (stride:1, a window over everything) replaced. Allows the same pairs.
Pattern simplify(const Pattern& pattern, int64_t n);

// The terms of one pass and of those before it that it must not repeat.
struct PassTerms {
  Pattern terms;
  Pattern excluded;
  TokenOrder queries;
  TokenOrder keys;
};

// About how many ranges PassRanges meets over all queries of n positions: one for each query and term, and
// those that excluded terms cut out one by one.
double ranges_of_pass(const PassTerms& pass, int64_t n);

// The passes of a simplified pattern: natural order first, then summaries, then lanes. In this order it is
// cheap to find what later passes exclude. Throws Error for numbers that no parsed term has.
std::vector<PassTerms> group_passes(const Pattern& pattern, int64_t n);

}  // namespace longstride
