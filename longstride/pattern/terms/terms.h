// Every kind of term, and the functions that depend on a term's kind.
//
// Only this list and TermKind name the kinds one by one; everything else visits the list. IsTerm says what
// a kind must have. A kind that lacks a member does not compile.
#pragma once

#include <concepts>
#include <cstddef>

#include "longstride/pattern/terms/block.h"
#include "longstride/pattern/terms/dense.h"
#include "longstride/pattern/terms/dilated.h"
#include "longstride/pattern/terms/prefix.h"
#include "longstride/pattern/terms/previous_row.h"
#include "longstride/pattern/terms/spread_summary.h"
#include "longstride/pattern/terms/stride.h"
#include "longstride/pattern/terms/summary.h"
#include "longstride/pattern/terms/term.h"
#include "longstride/pattern/terms/window.h"

namespace longstride {

namespace terms {

template <class... Kinds>
struct List {};

// In the order in which people see them.
using All = List<Dense, Window, Block, Stride, Summary, SpreadSummary, Prefix, PreviousRow, Dilated>;

template <class T>
concept IsTerm = requires(const Term& term, int64_t q, int64_t k, int64_t n, int64_t head) {
  // For texts and tests: its name and numbers as they are written; its rows of the table in the docs;
  // patterns of it to test everything with (small ones first, some longer than a short sequence); drawings
  // to test `allows` with.
  { T::kind } -> std::convertible_to<TermKind>;
  { T::name } -> std::convertible_to<const char*>;
  T::numbers.size();
  requires T::lines.size() > 0 && T::examples.size() > 0 && T::drawings.size() > 0;
  { T::colour } -> std::convertible_to<Colour>;

  // The definition, for 0 <= k <= q: may q look at k? And the term as head `head` has it.
  { T::allows(term, q, k) } -> std::same_as<bool>;
  { T::for_head(term, head) } -> std::same_as<Term>;

  // The order of positions in which the keys of each query are one range of indices, and that range: places
  // in q's lane, or ranks in a summary. Both ends grow with q within a lane.
  { T::key_order } -> std::convertible_to<TokenOrder::Kind>;
  { T::keys(term, q) } -> std::same_as<IndexRange>;

  // plainest: the same pairs of n positions by a plainer kind, or the term itself. contains: whether an
  // inner term allows no pair that the outer one does not. The inner kind is given as a type, and both are
  // in plainest form. The answer is false where it is hard to know.
  { T::plainest(term, n) } -> std::same_as<Term>;
  { T::template contains<T>(term, term) } -> std::same_as<bool>;

  // Where a sampler keeps its keys; with rows of their own, own_rows are the keys among the first n
  // positions. reach: how many keys back from a position, its own included, it may look; kUnlimited: back to
  // the first.
  { T::rows } -> std::convertible_to<Rows>;
  requires T::rows == Rows::ring || requires {
    { T::own_rows(term, n) } -> std::same_as<int64_t>;
  };
  { T::reach(term) } -> std::same_as<int64_t>;
  // The width of the rows in which the term sees positions; 0 if it sees no rows.
  { T::row_width(term) } -> std::same_as<int64_t>;
};

template <class... Kinds>
constexpr bool listed_in_order(List<Kinds...>) {
  int next = 0;
  return ((static_cast<int>(Kinds::kind) == next++) && ...);
}
static_assert(listed_in_order(All{}), "the list names the kinds in the order of TermKind");

// visit(kind, f) is f(Kind{}) with the traits of `kind`.
template <class F, IsTerm First, IsTerm... Rest>
LONGSTRIDE_HOST_DEVICE constexpr auto visit_list(TermKind kind, F&& f, List<First, Rest...>) {
  if constexpr (sizeof...(Rest) > 0)
    if (kind != First::kind) return visit_list(kind, f, List<Rest...>{});
  return f(First{});
}
template <class F>
LONGSTRIDE_HOST_DEVICE constexpr auto visit(TermKind kind, F&& f) {
  return visit_list(kind, f, All{});
}

}  // namespace terms

LONGSTRIDE_HOST_DEVICE inline bool Term::allows(int64_t q, int64_t k) const {
  return k <= q && terms::visit(kind, [&](auto t) { return decltype(t)::allows(*this, q, k); });
}

LONGSTRIDE_HOST_DEVICE inline TokenOrder::Kind key_order_kind(const Term& term) {
  return terms::visit(term.kind, [](auto t) { return decltype(t)::key_order; });
}

// Whether its keys are neighbours: all positions from one to another.
LONGSTRIDE_HOST_DEVICE inline bool is_contiguous(const Term& term) {
  return key_order_kind(term) == TokenOrder::Kind::natural;
}
LONGSTRIDE_HOST_DEVICE inline bool is_summary(const Term& term) {
  return key_order_kind(term) == TokenOrder::Kind::summary;
}
LONGSTRIDE_HOST_DEVICE inline bool is_lanes(const Term& term) {
  return key_order_kind(term) == TokenOrder::Kind::lanes;
}

// The keys of `term` that q may look at, in the term's own key order (ranges.h: key_order_of): positions,
// ranks in a summary, or places in q's lane. Both ends grow with q within a lane.
LONGSTRIDE_HOST_DEVICE inline IndexRange own_range(const Term& term, int64_t q) {
  return terms::visit(term.kind, [&](auto t) { return decltype(t)::keys(term, q); });
}

// For a term with rows of its own in a sampler's store: how many of the first n positions are its keys. 0
// for others.
LONGSTRIDE_HOST_DEVICE inline int64_t own_rows(const Term& term, int64_t n) {
  return terms::visit(term.kind, [&](auto t) -> int64_t {
    if constexpr (decltype(t)::rows == terms::Rows::own)
      return decltype(t)::own_rows(term, n);
    else
      return 0;
  });
}

}  // namespace longstride
