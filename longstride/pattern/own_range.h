// The keys of one term and one query as a range: the only arithmetic on terms besides Term::allows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "longstride/pattern/pattern.h"

namespace longstride {

struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;  // one past the last
  LONGSTRIDE_HOST_DEVICE bool empty() const { return begin >= end; }
};

LONGSTRIDE_HOST_DEVICE inline bool is_summary(const Term& term) {
  return term.kind == TermKind::summary || term.kind == TermKind::spread_summary;
}

// How many positions below `position` a summary holds.
LONGSTRIDE_HOST_DEVICE inline int64_t summary_rank(int64_t width, int64_t count, int64_t run,
                                                   int64_t position) {
  const int64_t start = width - (run + 1) * count, in_run = position % width - start;
  return position / width * count + (in_run < 0 ? 0 : in_run < count ? in_run : count);
}

// The keys of `term` that q may look at, in the term's own key order (ranges.h: key_order_of): positions,
// ranks in a summary, or places in q's lane. Both ends grow with q, within a lane.
LONGSTRIDE_HOST_DEVICE inline IndexRange own_range(const Term& term, int64_t q) {
  const int64_t size = term.size;
  switch (term.kind) {
    case TermKind::dense:
      return {0, q + 1};
    case TermKind::window:
      return {q + 1 > size ? q + 1 - size : 0, q + 1};
    case TermKind::block:
      return {q / size * size, q + 1};
    case TermKind::prefix:
      return {0, size < q + 1 ? size : q + 1};
    case TermKind::previous_row: {
      const int64_t row = q / size;
      return {(row > 0 ? row - 1 : 0) * size, row * size};
    }
    case TermKind::stride:
      return {0, q / size + 1};
    case TermKind::dilated: {
      const int64_t row = q / size + 1;
      return {row > term.count ? row - term.count : 0, row};
    }
    case TermKind::summary:
    case TermKind::spread_summary:
      return {0, summary_rank(size, term.count, term.run, q + 1)};
  }
  return {};
}

}  // namespace longstride
