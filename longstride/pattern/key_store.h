// Which keys a sampler has to keep, and in which rows.
//
// A sampler goes forward one position at a time and keeps a key only as long as the pattern lets a later
// position look at it. Each kind of term says where it keeps them (terms/):
//   window, block, previous-row, dilated   a ring of the latest keys, as many as the term reaches back
//   summary, prefix                        a row for each of their positions
//   dense, stride                          all keys: the key at k is looked at again from k + l
// Terms share the ring, which is as long as the longest of them needs. Where the ring and the other rows
// together would hold the whole sequence, every key has one row and all terms read that. A position reads
// its keys through a Reading: for each term a run of rows with a constant step. All of this is plain
// arithmetic, so that kernels can do it too.
#pragma once

#include <cstdint>

#include "longstride/pattern/pattern.h"

namespace longstride {

// One term's keys for one position: key j of `count` is in row(j).
struct TermReading {
  int32_t key = 0, key_step = 1, run = 1;  // position of key j: key + j / run * key_step + j % run
  int32_t count = 0;
  int32_t row = 0, row_step = 0;  // row of key 0, and the step to the next; without it a key's row is the key
  int32_t ring = 0;               // not 0: row `ring` is row 0 again, and so on
  bool may_repeat = false;        // some of its keys may be those of an earlier term too

  LONGSTRIDE_HOST_DEVICE int32_t key_at(int32_t j) const {
    return run == 1 ? key + j * key_step : key + j / run * key_step + j % run;
  }
  LONGSTRIDE_HOST_DEVICE int32_t row_at(int32_t j) const {
    if (row_step == 0) return key_at(j);
    const int32_t at = row + j * row_step;
    return ring > 0 && at >= ring ? at - ring : at;
  }
};

// What one position reads. The candidates are the keys of the first term, then those of the second, and so
// on. A few of them may be keys of an earlier term too.
struct Reading {
  TermReading terms[kMaxTerms];
  int32_t term_count = 0;
  int32_t candidates = 0;
  int32_t query = 0;
  int32_t neighbours = 0;  // all keys from here to the query are read as neighbours
};

struct KeyStore {
  Pattern pattern;                    // resolved for a head, simplified; ring, prefix, summaries, strides
  int32_t positions = 0;              // of a sequence
  int32_t rows = 0;                   // in all
  int32_t ring = 0;                   // rows [0, ring): key k in row k mod ring
  bool everything = false;            // the ring holds the whole sequence, and all terms read it
  int32_t first_row[kMaxTerms] = {};  // of a prefix's or summary's own rows; -1 for terms that read the ring
  bool operator==(const KeyStore&) const = default;
};

// The store of `pattern` (resolved for a head) for sequences of n positions. Throws Error unless n is in
// [1, 2^30].
KeyStore make_key_store(const Pattern& pattern, int64_t n);

// Calls visit(row) for each row that holds key k when `known` > k keys are known: for none if no later
// position may look at k.
template <class Visit>
LONGSTRIDE_HOST_DEVICE void for_rows_of_key(const KeyStore& store, int64_t k, int64_t known, Visit&& visit) {
  if (store.ring > 0 && k >= known - store.ring) visit(static_cast<int32_t>(k % store.ring));
  for (int t = 0; t < store.pattern.count; ++t) {
    if (store.first_row[t] < 0) continue;
    const Term& term = store.pattern.terms[t];
    const int64_t row = own_rows(term, k);
    if (row < own_rows(term, k + 1)) visit(store.first_row[t] + static_cast<int32_t>(row));
  }
}

// The keys that position q reads. Its own key must be stored already.
LONGSTRIDE_HOST_DEVICE inline Reading reading_of(const KeyStore& store, int64_t q) {
  Reading reading;
  reading.query = static_cast<int32_t>(q);
  reading.neighbours = static_cast<int32_t>(q + 1);
  reading.term_count = store.pattern.count;
  for (int t = 0; t < store.pattern.count; ++t) {
    const Term& term = store.pattern.terms[t];
    IndexRange range = own_range(term, q);
    TermReading& r = reading.terms[t];
    if (is_contiguous(term)) {
      // A range that touches an earlier range in the same rows joins it. One that ends inside an earlier
      // range ends before it.
      for (int e = 0; e < t; ++e) {
        TermReading& earlier = reading.terms[e];
        const int64_t begin = earlier.key, end = begin + earlier.count;
        if (earlier.count == 0 || range.empty() || range.begin > end || range.end < begin) continue;
        if (store.first_row[e] == store.first_row[t]) {
          earlier.key = static_cast<int32_t>(range.begin < begin ? range.begin : begin);
          earlier.count = static_cast<int32_t>((range.end > end ? range.end : end) - earlier.key);
          range = {};
        } else if (range.end <= end) {
          range.end = begin > range.begin ? begin : range.begin;
        }
      }
      r.key = static_cast<int32_t>(range.begin);
    } else if (is_summary(term)) {
      r.key = static_cast<int32_t>(term.size - (term.run + 1) * term.count);
      r.key_step = static_cast<int32_t>(term.size);
      r.run = static_cast<int32_t>(term.count);
      const int64_t before = summary_rank(term.size, term.count, term.run, reading.neighbours);
      range.end = before < range.end ? before : range.end;
    } else {
      const int64_t lane = q % term.size, left = reading.neighbours - lane;
      r.key = static_cast<int32_t>(range.begin * term.size + lane);
      r.key_step = static_cast<int32_t>(term.size);
      const int64_t before = left > 0 ? (left + term.size - 1) / term.size : 0;
      range.end = before < range.end ? before : range.end;
    }
    r.count = static_cast<int32_t>(range.empty() ? 0 : range.end - range.begin);
    for (int e = 0; e <= t && is_contiguous(term); ++e) {
      const TermReading& own = reading.terms[e];
      if (own.count > 0 && own.key + own.count == q + 1 && own.key < reading.neighbours)
        reading.neighbours = own.key;
    }
  }
  // The ranges are final here. Now come the rows, and which keys may still be read twice.
  for (int t = 0; t < store.pattern.count; ++t) {
    TermReading& r = reading.terms[t];
    for (int e = 0; e < t && r.count > 0; ++e) {
      const TermReading& earlier = reading.terms[e];
      // Two runs of neighbours are compared. Other runs end before the neighbours.
      bool apart = false;
      if (is_contiguous(store.pattern.terms[e]))
        apart = is_contiguous(store.pattern.terms[t])
                    ? earlier.key >= r.key + r.count || r.key >= earlier.key + earlier.count
                    : earlier.key >= reading.neighbours;
      if (earlier.count > 0 && !apart) r.may_repeat = true;
    }
    reading.candidates += r.count;
    if (store.everything) continue;
    if (store.first_row[t] >= 0) {
      r.row = store.first_row[t] + (is_summary(store.pattern.terms[t]) ? 0 : r.key);
      r.row_step = 1;
    } else {
      r.row = r.key % store.ring;
      r.row_step = r.key_step;
      r.ring = store.ring;
    }
  }
  return reading;
}

// Whether an earlier term than t reads `key` too.
LONGSTRIDE_HOST_DEVICE inline bool read_before(const KeyStore& store, const Reading& reading, int t,
                                               int32_t key) {
  for (int e = 0; e < t && reading.terms[t].may_repeat; ++e) {
    const TermReading& earlier = reading.terms[e];
    const Term& term = store.pattern.terms[e];
    if (is_contiguous(term) ? key >= earlier.key && key < earlier.key + earlier.count
                            : term.allows(reading.query, key))
      return true;
  }
  return false;
}

}  // namespace longstride
