// Which terms of a pattern form a pass, and which terms are not needed.
#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/pattern/ranges.h"

namespace longstride {

namespace {

void check_term(const Term& term) {
  terms::visit(term.kind, [&](auto t) {
    for (const terms::Number& number : decltype(t)::numbers) {
      const int64_t value = term.*number.field;
      LONGSTRIDE_CHECK(value >= number.least, "a pattern's {} has {} = {}, must be at least {}",
                       decltype(t)::name, number.name, value, number.least);
      LONGSTRIDE_CHECK(number.most == nullptr || value <= number.most(term),
                       "a pattern's {} has {} = {}, but must have {}", decltype(t)::name, number.name, value,
                       number.rule);
    }
    return true;
  });
}

// The same pairs of n positions, by the plainest kind that has them.
Term plainest(Term term, int64_t n) {
  for (;;) {
    check_term(term);
    const Term plainer = terms::visit(term.kind, [&](auto t) { return decltype(t)::plainest(term, n); });
    if (plainer == term) return term;
    term = plainer;
  }
}

// Whether every pair of `inner` is one of `outer`. Says no where the answer is not quick to find.
bool contains(const Term& outer, const Term& inner) {
  return terms::visit(outer.kind, [&](auto o) {
    return terms::visit(inner.kind,
                        [&](auto i) { return decltype(o)::template contains<decltype(i)>(outer, inner); });
  });
}

// Whether no pair is in both, so that neither needs to exclude the other.
bool apart(const Term& a, const Term& b) {
  if (!is_summary(a) || !is_summary(b) || a.size != b.size) return false;
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
