#include "longstride/pattern/key_store.h"

#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/pattern/ranges.h"

namespace longstride {

namespace {

constexpr int64_t kMostPositions = int64_t{1} << 30;

// Keys back from a position, its own included, that a term may look at; 0 for terms with rows of their own,
// n for those that look back to the beginning.
int64_t reach_of(const Term& term, int64_t n) {
  switch (term.kind) {
    case TermKind::window:
    case TermKind::block:
      return std::min(term.size, n);
    case TermKind::previous_row:
      return std::min(2 * term.size, n);
    case TermKind::dilated:
      return std::min((term.count - 1) * term.size + 1, n);
    case TermKind::summary:
    case TermKind::spread_summary:
    case TermKind::prefix:
      return 0;
    case TermKind::dense:
    case TermKind::stride:
      return n;
  }
  return n;
}

int64_t own_rows(const Term& term, int64_t n) {
  if (term.kind == TermKind::prefix) return std::min(term.size, n);
  return is_summary(term) ? summary_rank(term.size, term.count, term.run, n) : 0;
}

// Rings before prefixes before summaries before strides: what repeats earlier terms is then found by ranges.
int order_of(const Term& term) {
  if (term.kind == TermKind::prefix) return 1;
  if (is_contiguous(term)) return 0;
  return is_summary(term) ? 2 : 3;
}

}  // namespace

KeyStore make_key_store(const Pattern& pattern, int64_t n) {
  LONGSTRIDE_CHECK(n >= 1 && n <= kMostPositions, "keys of {} positions; 1 to {} are possible", n,
                   kMostPositions);
  KeyStore store;
  store.pattern = simplify(pattern, n);
  store.positions = static_cast<int32_t>(n);
  Term* const terms = store.pattern.terms;
  const int count = store.pattern.count;
  std::stable_sort(terms, terms + count,
                   [](const Term& a, const Term& b) { return order_of(a) < order_of(b); });
  int64_t ring = 0, own = 0;
  for (int t = 0; t < count; ++t) {
    ring = std::max(ring, reach_of(terms[t], n));
    own += own_rows(terms[t], n);
  }
  store.everything = ring + own >= n;
  store.ring = static_cast<int32_t>(store.everything ? n : ring);
  store.rows = store.ring;
  for (int t = 0; t < count; ++t) {
    const int64_t rows = own_rows(terms[t], n);
    store.first_row[t] = -1;
    if (store.everything || reach_of(terms[t], n) > 0) continue;
    store.first_row[t] = store.rows;
    store.rows += static_cast<int32_t>(rows);
  }
  return store;
}

}  // namespace longstride
