// The whole row above, when rows are l wide.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct PreviousRow : SameForAllHeads, ContainsItself {
  static constexpr TermKind kind = TermKind::previous_row;
  static constexpr const char* name = "previous-row";
  static constexpr std::array numbers{Number{"l", &Term::size}};
  static constexpr std::array lines{Line{"previous-row:l", "`k / l = q / l - 1`", "the whole row above"}};
  static constexpr std::array examples{"previous-row:6", "previous-row:50"};
  static constexpr std::array drawings{
      Drawing{"previous-row:3", "........ ........ ........ ###..... ###..... ###..... ...###.. ...###.."}};
  static constexpr Colour colour{201, 62, 92};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t q, int64_t k) {
    return k / term.size == q / term.size - 1;
  }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::natural;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    const int64_t row = q / term.size;
    return {(row > 0 ? row - 1 : 0) * term.size, row * term.size};
  }

  static Term plainest(const Term& term, int64_t) { return term; }

  static constexpr Rows rows = Rows::ring;
  static int64_t reach(const Term& term) { return 2 * term.size; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
