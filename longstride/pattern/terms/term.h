// One term of a pattern as a value, and the types by which terms/*.h describe each kind.
//
// Each kind of term has a file here with one struct of static members, its traits. terms.h lists the kinds
// and says which members each must have.
#pragma once

#include <cstdint>
#include <limits>

#include "longstride/base/host_device.h"
#include "longstride/pattern/colour.h"
#include "longstride/pattern/token_order.h"

namespace longstride {

// In the order of the list in terms.h.
enum class TermKind : uint8_t {
  dense,
  window,
  block,
  stride,
  summary,
  spread_summary,
  prefix,
  previous_row,
  dilated
};

struct Term {
  TermKind kind = TermKind::dense;
  int64_t size = 0;   // w, l, g, or d of dilated
  int64_t count = 0;  // c of summary, w of dilated
  int64_t run = 0;    // r of summary

  // May the query at position q look at position k? Defined in terms.h.
  LONGSTRIDE_HOST_DEVICE bool allows(int64_t q, int64_t k) const;
  bool operator==(const Term&) const = default;
};

namespace terms {

using TermField = int64_t Term::*;

// A number of a term, as it is written in a pattern.
struct Number {
  const char* name;
  TermField field;
  int64_t least = 1;
  // Where other numbers limit it: the largest value, and the rule in words. Numbers to its left are in range
  // already.
  int64_t (*most)(const Term&) = nullptr;
  const char* rule = nullptr;
  bool says_most = false;  // a message gives the largest value, because the rule does not show it
  bool optional = false;   // may be left out and is then 0; so may the numbers after it
};

// A row of the table in docs/patterns.md.
struct Line {
  const char* written;
  const char* allows;
  const char* meaning;
};

// A pattern drawn by hand, to test `allows` with: one word for each query, with # where it may look at the
// key.
struct Drawing {
  const char* pattern;
  const char* rows;
};

// Where a sampler keeps the keys of a term (key_store.h).
enum class Rows : uint8_t {
  ring,  // in a ring that all such terms share, as long as the longest reach
  own    // in the term's own rows, one for each position that it ever looks at
};

// The reach of a term that looks back to the first position.
inline constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// For kinds whose terms are the same for every head.
struct SameForAllHeads {
  static Term for_head(const Term& term, int64_t) { return term; }
};

// For kinds that contain no other term than their equals, as far as can be said quickly.
struct ContainsItself {
  template <class Inner>
  static bool contains(const Term& outer, const Term& inner) {
    return outer == inner;
  }
};

// Whether a term, in its plainest form, is the position's own key and no other.
inline bool is_only_self(const Term& term) { return term.kind == TermKind::window && term.size == 1; }

}  // namespace terms

}  // namespace longstride
