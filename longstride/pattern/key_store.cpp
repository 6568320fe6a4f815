#include "longstride/pattern/key_store.h"

#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/pattern/ranges.h"

namespace longstride {

namespace {

constexpr int64_t kMostPositions = int64_t{1} << 30;

// The number of keys, of n positions, that the ring must hold; 0 for terms with rows of their own.
int64_t ring_of(const Term& term, int64_t n) {
  return terms::visit(term.kind, [&](auto t) -> int64_t {
    return decltype(t)::rows == terms::Rows::ring ? std::min(decltype(t)::reach(term), n) : 0;
  });
}

// Rings come first, then prefixes, summaries and strides. So keys that repeat those of earlier terms are
// found by ranges.
int order_of(const Term& term, int64_t n) {
  switch (key_order_kind(term)) {
    case TokenOrder::Kind::natural:
      return ring_of(term, n) > 0 ? 0 : 1;
    case TokenOrder::Kind::summary:
      return 2;
    case TokenOrder::Kind::lanes:
      return 3;
  }
  return 3;
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
                   [n](const Term& a, const Term& b) { return order_of(a, n) < order_of(b, n); });
  int64_t ring = 0, own = 0;
  for (int t = 0; t < count; ++t) {
    ring = std::max(ring, ring_of(terms[t], n));
    own += own_rows(terms[t], n);
  }
  store.everything = ring + own >= n;
  store.ring = static_cast<int32_t>(store.everything ? n : ring);
  store.rows = store.ring;
  for (int t = 0; t < count; ++t) {
    const int64_t rows = own_rows(terms[t], n);
    store.first_row[t] = -1;
    if (store.everything || ring_of(terms[t], n) > 0) continue;
    store.first_row[t] = store.rows;
    store.rows += static_cast<int32_t>(rows);
  }
  return store;
}

}  // namespace longstride
