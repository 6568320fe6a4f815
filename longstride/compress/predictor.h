// What predicts the next bytes of several windows side by side: a decoder of floating-point numbers, or one of
// integers.
#pragma once

#include <cstdint>
#include <span>

#include "longstride/base/tensor.h"

namespace longstride {

class Predictor {
 public:
  virtual ~Predictor() = default;
  virtual int64_t streams() const = 0;    // windows side by side
  virtual int64_t positions() const = 0;  // that a window may have
  virtual int64_t context() const = 0;    // of the model
  // The logits (streams, 256) f32 of the bytes at `position` of the first previous.size() windows, in CPU memory,
  // valid until the next call. Rows of the other windows, which rest, mean nothing. `previous` are the bytes at
  // position - 1; they are not read at 0, which begins all windows again. Positions follow one another.
  virtual Tensor step(std::span<const uint8_t> previous, int64_t position) = 0;
};

}  // namespace longstride
