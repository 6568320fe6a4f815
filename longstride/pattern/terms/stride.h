// The position's own column, when rows are l wide.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Stride : SameForAllHeads {
  static constexpr TermKind kind = TermKind::stride;
  static constexpr const char* name = "stride";
  static constexpr std::array numbers{Number{"l", &Term::size}};
  static constexpr std::array lines{
      Line{"stride:l", "`(q - k) mod l = 0`", "the own column, when rows are `l` wide"}};
  static constexpr std::array examples{"stride:7", "stride:1", "stride:200"};
  static constexpr std::array drawings{
      Drawing{"stride:3", "#....... .#...... ..#..... #..#.... .#..#... ..#..#.. #..#..#. .#..#..#"}};
  static constexpr Colour colour{224, 104, 54};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t q, int64_t k) {
    return (q - k) % term.size == 0;
  }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::lanes;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    return {0, q / term.size + 1};
  }

  static Term plainest(const Term& term, int64_t n) {
    if (term.size == 1) return {TermKind::dense};
    return term.size >= n ? Term{TermKind::window, 1} : term;
  }
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    return is_only_self(inner) ||
           (Inner::key_order == TokenOrder::Kind::lanes && inner.size % outer.size == 0);
  }

  static constexpr Rows rows = Rows::ring;
  static int64_t reach(const Term&) { return kUnlimited; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
