// Which earlier positions each position may look at.
//
// A Pattern is a union of closed-form terms; `allows` is its one definition. Everything else (tiles, row
// lists, pair counts, pictures) is derived from the terms by exact arithmetic in plan.h and tested against
// `allows`.
//
// Terms, with q the query's position, k the key's, always k <= q (paper: section 4.2-4.3, and neighbours):
//   dense                  every k
//   window:w               q - k < w                       the last w positions, own included
//   block:l                floor(k/l) = floor(q/l)         own block
//   stride:l               (q - k) mod l = 0               own column, when rows are l wide
//   summary:l,c            k mod l >= l - c                the last c positions of every block of l
//   summary:l,c,r          the r-th run of c counted from the block's end (r = 0 is the line above)
//   spread-summary:l,c     summary:l,c,r with r = head mod (l/c): each head has its own run
//   prefix:g               k < g                           the first g positions
//   previous-row:l         floor(k/l) = floor(q/l) - 1     the whole row above
//   dilated:w,d            q - k in {0, d, ..., (w-1)d}
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/host_device.h"

namespace longstride {

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

  LONGSTRIDE_HOST_DEVICE bool allows(int64_t q, int64_t k) const {
    if (k > q) return false;
    switch (kind) {
      case TermKind::dense:
        return true;
      case TermKind::window:
        return q - k < size;
      case TermKind::block:
        return q / size == k / size;
      case TermKind::stride:
        return (q - k) % size == 0;
      case TermKind::summary:
      case TermKind::spread_summary: {  // a spread summary that no head has resolved reads as run 0
        const int64_t from_end = size - 1 - k % size;
        return from_end / count == run;
      }
      case TermKind::prefix:
        return k < size;
      case TermKind::previous_row:
        return k / size == q / size - 1;
      case TermKind::dilated:
        return (q - k) % size == 0 && (q - k) / size < count;
    }
    return false;
  }
  bool operator==(const Term&) const = default;
};

inline constexpr int kMaxTerms = 6;

struct Pattern {
  Term terms[kMaxTerms];
  int count = 0;

  // May the query at position q look at position k?
  LONGSTRIDE_HOST_DEVICE bool allows(int64_t q, int64_t k) const {
    for (int t = 0; t < count; ++t)
      if (terms[t].allows(q, k)) return true;
    return false;
  }
  // Adds a term unless an equal one is there. Throws Error beyond kMaxTerms.
  void add(const Term& term);
  // The pattern that head `head` uses: spread summaries become the head's own run.
  Pattern for_head(int64_t head) const;
  bool operator==(const Pattern&) const;
};

// "block:128+summary:128,32" as a Pattern and back; presets strided:l = window:l+stride:l, fixed:l,c =
// block:l+summary:l,c and spread-fixed:l,c = block:l+spread-summary:l,c expand while parsing. Throws Error
// that quotes the text, names the faulty part, the range its numbers may have, and the nearest known name.
Pattern parse_pattern(std::string_view text);
std::string to_string(const Pattern& pattern);

// The patterns of one layer, head by head: "window:64|stride:64" gives the first half of the heads the first
// pattern and the second half the second (the paper's "multi-head" integration). One pattern is shared by all
// heads.
struct LayerPattern {
  std::vector<Pattern> groups;
  // The resolved pattern of `head` of `heads`.
  Pattern for_head(int64_t head, int64_t heads) const;
  bool operator==(const LayerPattern&) const = default;
};

// A cycle of layers: "stride:128,window:128*3" is one strided layer and three local ones, repeated over the
// model (the paper's "interleaved" integration). A comma opens a new layer when a letter follows it, else it
// separates numbers.
struct Schedule {
  std::vector<LayerPattern> cycle;
  const LayerPattern& layer(int64_t index) const { return cycle[index % cycle.size()]; }
};
Schedule parse_schedule(std::string_view text);
std::string to_string(const LayerPattern& layer);
std::string to_string(const Schedule& schedule);

// Throws Error if a layer's groups cannot be dealt to `heads` heads equally.
void check_heads(const Schedule& schedule, int64_t heads);

}  // namespace longstride
