// The keys of one query in one pass as bits, 64 at a time.
//
// If a pass leaves out a summary or a stride of an unrelated width, the keys that it leaves out are
// scattered among those that stay. As ranges they would be listed one by one; as bits 64 of them cost as
// much as one.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "longstride/pattern/ranges.h"

namespace longstride {

class PassBits {
 public:
  // All of `terms` must have the key order `keys`. Uses one bit of memory for each key if summaries are
  // excluded.
  PassBits(const Pattern& terms, const Pattern& excluded, const TokenOrder& keys);

  // The ranges of offsets in its lane that a query may look at, before single keys in them are left out.
  struct Row {
    int64_t lane = 0;
    int64_t place = 0;  // its own offset in the lane of a lanes order
    int count = 0;
    std::array<IndexRange, kMaxTerms> ranges;  // ascending, disjoint, not empty; each term adds at most one
    int64_t begin() const { return count == 0 ? 0 : ranges[0].begin; }
    int64_t end() const { return count == 0 ? 0 : ranges[static_cast<size_t>(count - 1)].end; }
  };
  Row row(int64_t q);

  // Bit i: the row's query may look at the key at offset begin + i of its lane. For 0 <= begin < lane length.
  uint64_t bits(const Row& row, int64_t begin) const;

 private:
  // Rows of a lane that another stride or dilation sees as well: every `step` back from a query's own.
  struct Progression {
    int64_t step = 1;
    int64_t reach = 0;       // rows back at most
    uint64_t multiples = 0;  // bits 0, step, 2 step, ...
  };
  uint64_t left_out(const Row& row, int64_t begin) const;

  TokenOrder keys_;
  PassRanges ranges_;                // with those excluded terms that are ranges
  std::vector<uint64_t> summaries_;  // a bit for each index of the order: is it in an excluded summary?
  std::vector<Progression> progressions_;
};

// Whether the pass leaves out single keys here and there, which ranges would list one by one.
bool leaves_out_single_keys(const PassTerms& pass);

// About how many words of bits the queries of n positions take in a pass, with key tiles of `tile`.
double words_of_pass(const PassTerms& pass, int64_t n, int64_t tile);

}  // namespace longstride
