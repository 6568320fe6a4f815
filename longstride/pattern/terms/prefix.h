// The first g positions.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Prefix : SameForAllHeads {
  static constexpr TermKind kind = TermKind::prefix;
  static constexpr const char* name = "prefix";
  static constexpr std::array numbers{Number{"g", &Term::size}};
  static constexpr std::array lines{Line{"prefix:g", "`k < g`", "the first `g` positions"}};
  static constexpr std::array examples{"prefix:3", "prefix:500"};
  static constexpr std::array drawings{Drawing{"prefix:2", "#.... ##... ##... ##... ##..."}};
  static constexpr Colour colour{133, 92, 190};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t, int64_t k) { return k < term.size; }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::natural;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    return {0, term.size < q + 1 ? term.size : q + 1};
  }

  static Term plainest(const Term& term, int64_t n) { return term.size >= n ? Term{TermKind::dense} : term; }
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    return Inner::kind == kind && inner.size <= outer.size;
  }

  static constexpr Rows rows = Rows::own;
  LONGSTRIDE_HOST_DEVICE static int64_t own_rows(const Term& term, int64_t n) {
    return term.size < n ? term.size : n;
  }
  static int64_t reach(const Term&) { return kUnlimited; }
  static int64_t row_width(const Term&) { return 0; }
};

}  // namespace longstride::terms
