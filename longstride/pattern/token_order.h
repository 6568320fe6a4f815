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

// Where the indices of one lane stand: in blocks of `count` neighbours, with a leap from the end of each block to the
// beginning of the next. All that lays out tiles, for whatever device, asks this.
struct LaneSteps {
  int64_t first = 0;
  int64_t count = 1;
  int64_t leap = 0;
  LONGSTRIDE_HOST_DEVICE int64_t position(int64_t index) const {
    return first + index + (leap == 0 ? 0 : index / count * leap);
  }
};

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
  // Lane number `lane`, which only the order of lanes looks at. A position of n or more is padding.
  LONGSTRIDE_HOST_DEVICE LaneSteps lane(int64_t lane) const;
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
      // Of the last block those of the run that the sequence has. `start` is the run's first offset; it is never
      // below 0, because parsing requires (run + 1) * count <= width.
      const int64_t start = width - (run + 1) * count;
      const int64_t tail = n % width - start;
      const int64_t in_tail = tail < 0 ? 0 : (tail < count ? tail : count);
      return n / width * count + in_tail;
    }
  }
  return 0;
}

LONGSTRIDE_HOST_DEVICE inline LaneSteps TokenOrder::lane(int64_t lane) const {
  switch (kind) {
    case Kind::natural:
      return {0, n > 0 ? n : 1, 0};
    case Kind::lanes:
      return {lane, 1, width - 1};
    case Kind::summary:
      return {width - (run + 1) * count, count, width - count};
  }
  return {};
}

LONGSTRIDE_HOST_DEVICE inline int64_t TokenOrder::position(int64_t index) const {
  if (kind != Kind::lanes) return lane(0).position(index);
  const int64_t length = lane_length();
  return lane(index / length).position(index % length);
}

}  // namespace longstride
