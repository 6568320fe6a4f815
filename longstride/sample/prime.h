// The bytes that a sample goes on from, cut to what the sample can use.
//
// The caller gets them from a file, a pipe, a part of the run's data or memory. Then two steps follow. The
// first takes the wanted beginning, in bytes, rows or seconds. The second, if that is too long for the
// sample or for the model's context, keeps its end. Neither prints; lines for people go to `note`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "longstride/data/config.h"
#include "longstride/data/corpus.h"
#include "longstride/sample/generate.h"

namespace longstride {

// How much of the beginning of a prime is used.
struct PrimePart {
  double fraction = 0;        // of its bytes or, for a picture, of its rows; 0: the default
  double seconds = 0;         // of sound, at most; 0: no limit
  bool whole_window = false;  // the default is half, as for a picture, unless seconds are given; else all
};

// That part of the prime: of a picture of `shape` whole rows, of other data at least one byte.
std::vector<uint8_t> beginning_of_prime(std::vector<uint8_t> prime, const PrimePart& part,
                                        const DataConfig& data, const ImageShape& shape);

// The prime as it is, if it leaves a sample of `length` bytes something to draw and fits the context. Else
// its end: half of a sample that fits one window, or as much as `windows` keep of the past. Then `note`
// receives a line.
std::vector<uint8_t> end_of_prime(std::vector<uint8_t> prime, int64_t length, const Windows& windows,
                                  const std::function<void(const std::string& line)>& note = {});

}  // namespace longstride
