// A run of c positions of every block of l, counted from the block's end.
#pragma once

#include <array>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Summary : SameForAllHeads {
  static constexpr TermKind kind = TermKind::summary;
  static constexpr const char* name = "summary";
  static constexpr std::array numbers{
      Number{"l", &Term::size},
      Number{.name = "c",
             .field = &Term::count,
             .most = [](const Term& term) { return term.size; },
             .rule = "1 <= c <= l"},
      Number{.name = "r",
             .field = &Term::run,
             .least = 0,
             .most = [](const Term& term) { return term.size / term.count - 1; },
             .rule = "0 <= r < l/c",
             .says_most = true,
             .optional = true}};
  static constexpr std::array lines{
      Line{"summary:l,c", "`k mod l >= l - c`", "the last `c` positions of every block of `l`; `c <= l`"},
      Line{"summary:l,c,r", "run `r` of `c`, counted from the block's end",
           "`r = 0` is the line above; `r < l / c`"}};
  static constexpr std::array examples{"summary:8,3", "summary:8,2,1", "summary:100,30", "summary:5,5"};
  static constexpr std::array drawings{
      Drawing{"summary:4,1",
              "......... ......... ......... ...#..... ...#..... ...#..... ...#..... ...#...#. ...#...#."},
      Drawing{"summary:5,2",
              ".......... .......... .......... ...#...... ...##..... ...##..... ...##..... ...##..... "
              "...##...#. ...##...##"},
      Drawing{"summary:5,2,1",
              ".......... .#........ .##....... .##....... .##....... .##....... .##...#... .##...##.. "
              ".##...##.. .##...##.."}};
  static constexpr Colour colour{233, 161, 32};

  LONGSTRIDE_HOST_DEVICE static bool allows(const Term& term, int64_t, int64_t k) {
    const int64_t from_end = term.size - 1 - k % term.size;
    return from_end / term.count == term.run;
  }

  static constexpr TokenOrder::Kind key_order = TokenOrder::Kind::summary;
  LONGSTRIDE_HOST_DEVICE static IndexRange keys(const Term& term, int64_t q) {
    return {0, summary_rank(term.size, term.count, term.run, q + 1)};
  }

  static Term plainest(const Term& term, int64_t) {
    return term.count == term.size ? Term{TermKind::dense} : term;
  }
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    if (Inner::kind != kind || inner.size % outer.size != 0) return false;
    const int64_t outer_start = outer.size - (outer.run + 1) * outer.count;
    const int64_t inner_start = (inner.size - (inner.run + 1) * inner.count) % outer.size;
    return inner_start >= outer_start && inner_start + inner.count <= outer_start + outer.count;
  }

  static constexpr Rows rows = Rows::own;
  LONGSTRIDE_HOST_DEVICE static int64_t own_rows(const Term& term, int64_t n) {
    return summary_rank(term.size, term.count, term.run, n);
  }
  static int64_t reach(const Term&) { return kUnlimited; }
  static int64_t row_width(const Term& term) { return term.size; }
};

}  // namespace longstride::terms
