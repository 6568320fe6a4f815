// w positions, d apart.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Dilated : SameForAllHeads {
  static constexpr TermKind kind = TermKind::dilated;
  static constexpr const char* name = "dilated";
  static constexpr std::array numbers{Number{"w", &Term::count}, Number{"d", &Term::size}};
  static constexpr std::array lines{
      Line{"dilated:w,d", "`q - k` in `0, d, ..., (w - 1) d`", "`w` positions, `d` apart"}};
  static constexpr std::array examples{"dilated:4,3", "dilated:4,1", "dilated:2,33"};
  static constexpr std::array drawings{
      Drawing{"dilated:3,2", "#....... .#...... #.#..... .#.#.... #.#.#... .#.#.#.. ..#.#.#. ...#.#.#"}};
  static constexpr Colour colour{96, 150, 52};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t q, int64_t k) {
    return (q - k) % term.size == 0 && (q - k) / term.size < term.count;
  }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::lanes;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    const int64_t row = q / term.size + 1;
    return {row > term.count ? row - term.count : 0, row};
  }

  static Term plainest(const Term& term, int64_t n) {
    if (term.size == 1) return {TermKind::window, term.count};
    return term.count == 1 || term.size >= n ? Term{TermKind::window, 1} : term;
  }
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    return is_only_self(inner) || (Inner::kind == kind && inner.size % outer.size == 0 &&
                                   Inner::reach(inner) <= outer.count * outer.size);
  }

  static constexpr Rows rows = Rows::ring;
  static int64_t reach(const Term& term) { return (term.count - 1) * term.size + 1; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
