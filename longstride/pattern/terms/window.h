// The last w positions.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Window : SameForAllHeads {
  static constexpr TermKind kind = TermKind::window;
  static constexpr const char* name = "window";
  static constexpr std::array numbers{Number{"w", &Term::size}};
  static constexpr std::array lines{
      Line{"window:w", "`q - k < w`", "the last `w` positions, its own included"}};
  static constexpr std::array examples{"window:5", "window:1", "window:100"};
  static constexpr std::array drawings{
      Drawing{"window:3", "#....... ##...... ###..... .###.... ..###... ...###.. ....###. .....###"}};
  static constexpr Colour colour{45, 114, 200};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t q, int64_t k) {
    return q - k < term.size;
  }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::natural;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    return {q + 1 > term.size ? q + 1 - term.size : 0, q + 1};
  }

  static Term plainest(const Term& term, int64_t n) { return term.size >= n ? Term{TermKind::dense} : term; }
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    return Inner::reach(inner) <= outer.size;
  }

  static constexpr Rows rows = Rows::ring;
  static int64_t reach(const Term& term) { return term.size; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
