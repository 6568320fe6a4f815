// Which earlier positions each position may look at.
//
// A Pattern is a union of closed-form terms; `allows` is its one definition. Everything else (tiles, row
// lists, pair counts, pictures) is derived from the terms by exact arithmetic in plan.h, and tested against
// `allows`. The kinds of terms are in terms/; docs/patterns.md has a table of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/error.h"
#include "longstride/base/host_device.h"
#include "longstride/pattern/terms/terms.h"

namespace longstride {

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
  // The pattern of head `head`: spread summaries become the head's own run.
  Pattern for_head(int64_t head) const;
  bool operator==(const Pattern&) const;
};

// The error for a text that is not a pattern. Its message is one line, which quotes the text and names the
// faulty part, the range its numbers may have, and the nearest known name.
class PatternError : public Error {
 public:
  PatternError(const std::string& message, std::string_view text, size_t begin, size_t end);
  // The message, below it the text, and below that carets under the faulty part. Only the message if the
  // text does not fit in a line.
  std::string with_caret() const;

 private:
  std::string text_;
  size_t begin_, end_;  // the faulty part
};

// "block:128+summary:128,32" as a Pattern and back; presets strided:l = window:l+stride:l, fixed:l,c =
// block:l+summary:l,c and spread-fixed:l,c = block:l+spread-summary:l,c expand while parsing. Throws
// PatternError.
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
// model (the paper's "interleaved" integration). A comma opens a new layer if a letter follows it; else it
// separates numbers.
struct Schedule {
  std::vector<LayerPattern> cycle;
  const LayerPattern& layer(int64_t index) const { return cycle[index % cycle.size()]; }
};
// Throws PatternError.
Schedule parse_schedule(std::string_view text);
std::string to_string(const LayerPattern& layer);
std::string to_string(const Schedule& schedule);

// Throws Error if a layer's groups cannot share `heads` heads equally.
void check_heads(const Schedule& schedule, int64_t heads);

}  // namespace longstride
