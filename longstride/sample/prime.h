// What a sample goes on from: bytes that a model understands, cut to what the sample has a use for.
//
// Where they come from (a file, a pipe, a part of the run's data, memory) is the caller's. Two steps follow: the
// beginning that is wanted of them, in bytes, rows or seconds, and of one that is too long for the sample or for
// the model's context, its end. Neither step prints; what people may want to know goes to `note`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "longstride/data/config.h"
#include "longstride/data/corpus.h"
#include "longstride/sample/generate.h"

namespace longstride {

// How much of the beginning of a prime to use.
struct PrimePart {
  double fraction = 0;        // of its bytes or, for a picture, of its rows; 0: by default
  double seconds = 0;         // of what is timed, at most; 0: no limit
  bool whole_window = false;  // of the data: half of it is the default, as of a picture; else all
};

// That part of the prime; a picture of `shape` gives whole rows. At least a byte of what is no picture.
std::vector<uint8_t> beginning_of_prime(std::vector<uint8_t> prime, const PrimePart& part,
                                        const DataConfig& data, const ImageShape& shape);

// The prime as it is if it leaves a sample of `length` bytes something to draw and fits the context; else its
// end: half of a sample that fits one window, or as much as `windows` keep of the past. `note` is then told.
std::vector<uint8_t> end_of_prime(std::vector<uint8_t> prime, int64_t length, const Windows& windows,
                                  const std::function<void(const std::string& line)>& note = {});

}  // namespace longstride
