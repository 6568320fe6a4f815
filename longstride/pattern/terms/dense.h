// Every earlier position: full causal attention.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Dense : SameForAllHeads {
  static constexpr TermKind kind = TermKind::dense;
  static constexpr const char* name = "dense";
  static constexpr std::array<Number, 0> numbers{};
  static constexpr std::array lines{Line{"dense", "every `k`", "full causal attention"}};
  static constexpr std::array examples{"dense"};
  static constexpr std::array drawings{Drawing{"dense", "#... ##.. ###. ####"}};
  static constexpr Colour colour{84, 110, 140};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term&, int64_t, int64_t) { return true; }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::natural;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term&, int64_t q) { return {0, q + 1}; }

  static Term plainest(const Term& term, int64_t) { return term; }
  template <class Inner>
  static bool contains(const Term&, const Term&) {
    return true;
  }

  static constexpr Rows rows = Rows::ring;
  static int64_t reach(const Term&) { return kUnlimited; }
  static int64_t row_width(const Term&) { return 0; }
};

}  // namespace longstride::terms
