// A summary whose run depends on the head. Before it is resolved for a head, it counts as run 0.
#pragma once

#include <array>

#include "longstride/pattern/terms/summary.h"

namespace longstride::terms {

struct SpreadSummary : ContainsItself {
  static constexpr TermKind kind = TermKind::spread_summary;
  static constexpr const char* name = "spread-summary";
  static constexpr std::array numbers{Summary::numbers[0], Summary::numbers[1]};
  static constexpr std::array lines{
      Line{"spread-summary:l,c", "`summary:l,c,r` with `r = head mod (l / c)`", "each head has its own run"}};
  static constexpr std::array examples{"spread-summary:8,2", "spread-summary:12,5"};
  static constexpr std::array drawings{Drawing{"spread-summary:4,1", Summary::drawings[0].rows}};
  static constexpr Colour colour = Summary::colour;

  static Term for_head(const Term& term, int64_t head) {
    return {TermKind::summary, term.size, term.count, head % (term.size / term.count)};
  }
  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t q, int64_t k) {
    return Summary::allows(term, q, k);
  }

  static constexpr TokenOrder::Kind key_order = Summary::key_order;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    return Summary::keys(term, q);
  }

  static Term plainest(const Term& term, int64_t) {
    return {TermKind::summary, term.size, term.count, term.run};
  }

  static constexpr Rows rows = Rows::own;
  LONGSTRIDE_HOST_DEVICE static int64_t own_rows(const Term& term, int64_t n) {
    return Summary::own_rows(term, n);
  }
  static int64_t reach(const Term&) { return kUnlimited; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
