// The orders of positions in which a term's keys are neighbours.
#pragma once

#include <cstdint>

#include "longstride/base/host_device.h"

namespace longstride {

// A half-open range of indices.
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;  // one past the last
  LONGSTRIDE_HOST_DEVICE bool empty() const { return begin >= end; }
};

// How many positions before `position` are in run `run` of `count` positions, counted from the end of each
// block of `width`.
LONGSTRIDE_HOST_DEVICE inline int64_t summary_rank(int64_t width, int64_t count, int64_t run,
                                                   int64_t position) {
  const int64_t start = width - (run + 1) * count, in_run = position % width - start;
  return position / width * count + (in_run < 0 ? 0 : in_run < count ? in_run : count);
}

// A closed-form map from a compact index to a position in the sequence. It is increasing within a lane.
struct TokenOrder {
  enum class Kind : uint8_t { natural, lanes, summary };
  Kind kind = Kind::natural;
  int64_t n = 0;      // positions in the sequence
  int64_t width = 1;  // l of lanes and summary
  int64_t count = 0;  // c of summary
  int64_t run = 0;    // r of summary

  // A lane is a stretch of consecutive indices; all lanes have the same length, with padding. Natural and
  // summary order have one lane, lanes order min(l, n) of ceil(n/l). The last index of a lane may be
  // padding, with position() >= n; skip it.
  LONGSTRIDE_HOST_DEVICE int64_t lanes() const { return kind == Kind::lanes ? (width < n ? width : n) : 1; }
  LONGSTRIDE_HOST_DEVICE int64_t lane_length() const;
  LONGSTRIDE_HOST_DEVICE int64_t size() const { return lanes() * lane_length(); }
  // The position of compact index `index`; n or more if the index is padding.
  LONGSTRIDE_HOST_DEVICE int64_t position(int64_t index) const;
  bool operator==(const TokenOrder&) const = default;
};

LONGSTRIDE_HOST_DEVICE inline int64_t TokenOrder::lane_length() const {
  switch (kind) {
    case Kind::natural:
      return n;
    case Kind::lanes:
      return (n + width - 1) / width;
    case Kind::summary: {
      // Position of index i: (i / count) * width + start + i % count, where start is the run's first offset;
      // the run may be cut by the block's beginning (offset < 0 never occurs: parsing requires (run + 1) *
      // count <= width).
      const int64_t start = width - (run + 1) * count;
      const int64_t tail = n % width - start;
      const int64_t in_tail = tail < 0 ? 0 : (tail < count ? tail : count);
      return n / width * count + in_tail;
    }
  }
  return 0;
}

LONGSTRIDE_HOST_DEVICE inline int64_t TokenOrder::position(int64_t index) const {
  switch (kind) {
    case Kind::natural:
      return index;
    case Kind::lanes: {
      const int64_t length = lane_length();
      return index % length * width + index / length;
    }
    case Kind::summary:
      return index / count * width + (width - (run + 1) * count) + index % count;
  }
  return n;
}

}  // namespace longstride
