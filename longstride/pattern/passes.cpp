// Which terms of a pattern make a pass, and which need not be there at all.
#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/pattern/ranges.h"

namespace longstride {

using enum TermKind;

namespace {

void check_term(const Term& term) {
  const bool is_summary = term.kind == summary || term.kind == spread_summary;
  LONGSTRIDE_CHECK(term.kind == dense || term.size >= 1, "a pattern's term has size {}, must be at least 1",
                   term.size);
  LONGSTRIDE_CHECK((!is_summary && term.kind != dilated) || term.count >= 1,
                   "a pattern's term has count {}, must be at least 1", term.count);
  LONGSTRIDE_CHECK(!is_summary || (term.run >= 0 && (term.run + 1) * term.count <= term.size),
                   "summary:{},{},{} reaches beyond its block; (r + 1) * c may be at most l", term.size,
                   term.count, term.run);
}

// The same pairs of n positions by the plainest kind that says them.
Term plainest(Term term, int64_t n) {
  if (term.kind == spread_summary) term.kind = summary;
  if (term.kind == dilated && term.count == 1) return plainest({window, 1}, n);
  if (term.kind == dilated && term.size == 1) return plainest({window, term.count}, n);
  switch (term.kind) {
    case window:
    case block:
    case prefix:
      return term.size >= n ? Term{dense} : term;
    case stride:
      return term.size == 1 ? Term{dense} : term.size >= n ? plainest({window, 1}, n) : term;
    case dilated:
      return term.size >= n ? plainest({window, 1}, n) : term;
    case summary:
      return term.count == term.size ? Term{dense} : term;
    default:
      return term;
  }
}

// Every pair of `inner` is one of `outer`. Says no where that would take more than a glance.
bool contains(const Term& outer, const Term& inner) {
  if (outer.kind == dense) return true;
  const bool only_self = inner.kind == window && inner.size == 1;
  const bool on_stride = (inner.kind == stride || inner.kind == dilated) && inner.size % outer.size == 0;
  const int64_t inner_reach = inner.kind == window         ? inner.size
                              : inner.kind == block        ? inner.size
                              : inner.kind == previous_row ? 2 * inner.size
                              : inner.kind == dilated      ? (inner.count - 1) * inner.size + 1
                                                           : -1;  // without a limit
  switch (outer.kind) {
    case window:
      return inner_reach >= 0 && inner_reach <= outer.size;
    case block:
      return only_self || (inner.kind == block && outer.size % inner.size == 0);
    case prefix:
      return inner.kind == prefix && inner.size <= outer.size;
    case stride:
      return only_self || on_stride;
    case dilated:
      return only_self || (on_stride && inner.kind == dilated && inner_reach <= outer.count * outer.size);
    case summary: {
      if (inner.kind != summary || inner.size % outer.size != 0) return false;
      const int64_t outer_start = outer.size - (outer.run + 1) * outer.count;
      const int64_t inner_start = (inner.size - (inner.run + 1) * inner.count) % outer.size;
      return inner_start >= outer_start && inner_start + inner.count <= outer_start + outer.count;
    }
    default:
      return outer == inner;
  }
}

// No pair is in both, so neither needs to exclude the other.
bool apart(const Term& a, const Term& b) {
  if (a.kind != summary || b.kind != summary || a.size != b.size) return false;
  const int64_t a_start = a.size - (a.run + 1) * a.count;
  const int64_t b_start = b.size - (b.run + 1) * b.count;
  return a_start + a.count <= b_start || b_start + b.count <= a_start;
}

int rank_of(const TokenOrder& key_order) {
  switch (key_order.kind) {
    case TokenOrder::Kind::natural:
      return 0;
    case TokenOrder::Kind::summary:
      return 1;
    case TokenOrder::Kind::lanes:
      return 2;
  }
  return 3;
}

}  // namespace

Pattern simplify(const Pattern& pattern, int64_t n) {
  Pattern plain;
  for (int t = 0; t < pattern.count; ++t) {
    check_term(pattern.terms[t]);
    plain.add(plainest(pattern.terms[t], n));
  }
  Pattern needed;
  for (int t = 0; t < plain.count; ++t) {
    bool contained = false;
    for (int other = 0; other < plain.count && !contained; ++other) {
      if (other == t || !contains(plain.terms[other], plain.terms[t])) continue;
      contained =
          other < t || !contains(plain.terms[t], plain.terms[other]);  // of two equal ones the first stays
    }
    if (!contained) needed.add(plain.terms[t]);
  }
  return needed;
}

std::vector<PassTerms> group_passes(const Pattern& pattern, int64_t n) {
  const Pattern needed = simplify(pattern, n);
  std::vector<PassTerms> passes;
  for (int t = 0; t < needed.count; ++t) {
    const Term& term = needed.terms[t];
    const TokenOrder keys = key_order_of(term, n);
    auto pass =
        std::find_if(passes.begin(), passes.end(), [&](const PassTerms& p) { return p.keys == keys; });
    if (pass == passes.end()) pass = passes.insert(passes.end(), {{}, {}, query_order_of(term, n), keys});
    pass->terms.add(term);
  }
  std::stable_sort(passes.begin(), passes.end(),
                   [](const PassTerms& a, const PassTerms& b) { return rank_of(a.keys) < rank_of(b.keys); });
  for (auto pass = passes.begin(); pass != passes.end(); ++pass)
    for (auto earlier = passes.begin(); earlier != pass; ++earlier)
      for (int t = 0; t < earlier->terms.count; ++t) {
        const Term* terms = pass->terms.terms;
        const bool meets = std::any_of(terms, terms + pass->terms.count,
                                       [&](const Term& own) { return !apart(own, earlier->terms.terms[t]); });
        if (meets) pass->excluded.add(earlier->terms.terms[t]);
      }
  return passes;
}

}  // namespace longstride
