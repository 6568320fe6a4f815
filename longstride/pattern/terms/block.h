// The position's own block of l, so far.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Block : SameForAllHeads {
  static constexpr TermKind kind = TermKind::block;
  static constexpr const char* name = "block";
  static constexpr std::array numbers{Number{"l", &Term::size}};
  static constexpr std::array lines{
      Line{"block:l", "`k / l = q / l` (rounded down)", "the own block so far"}};
  static constexpr std::array examples{"block:8", "block:1", "block:90"};
  static constexpr std::array drawings{
      Drawing{"block:3", "#....... ##...... ###..... ...#.... ...##... ...###.. ......#. ......##"}};
  static constexpr Colour colour{31, 143, 133};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t q, int64_t k) {
    return q / term.size == k / term.size;
  }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::natural;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    return {q / term.size * term.size, q + 1};
  }

  static Term plainest(const Term& term, int64_t n) { return term.size >= n ? Term{TermKind::dense} : term; }
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    return is_only_self(inner) || (Inner::kind == kind && outer.size % inner.size == 0);
  }

  static constexpr Rows rows = Rows::ring;
  static int64_t reach(const Term& term) { return term.size; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
