// Dropout where a branch joins the residual stream, y = x + drop(branch), with masks from counter-based
// random numbers. Whether element i is kept depends only on (stream, first + i). So recomputation, resuming
// and every device give the same mask, and a part of a batch has the mask that it has in the whole.
#pragma once

#include "longstride/base/rng.h"
#include "longstride/ops/run.h"

namespace longstride {

// The probability is quantised to a multiple of 2^-16. With e = first + i, element i reads 16-bit lane e % 8
// of Philox block e / 8 (word (e % 8) / 2 of the block, low half first) and is dropped if that lane is below
// probability * 65536.
struct Dropout {
  RandomStream stream;
  double probability = 0;  // in [0, 1); 0 means none
  // If not null, *step_from replaces stream.step when the op runs. It is in memory of the op's device, so
  // that recorded work draws other masks each time it is replayed.
  const uint32_t* step_from = nullptr;
  int64_t first = 0;  // place of element 0 in the whole that masks are drawn for, such as a batch

  // The random numbers of the op.
  LONGSTRIDE_HOST_DEVICE RandomStream numbers() const {
    RandomStream s = stream;
    if (step_from != nullptr) s.step = *step_from;
    return s;
  }

  LONGSTRIDE_HOST_DEVICE uint32_t threshold() const {
    return static_cast<uint32_t>(probability * 65536.0 + 0.5);
  }
  // The factor of kept elements, 1 / (1 - quantised probability).
  LONGSTRIDE_HOST_DEVICE float scale() const {
    return 65536.0f / (65536.0f - static_cast<float>(threshold()));
  }
  LONGSTRIDE_HOST_DEVICE bool keeps(uint64_t element) const {
    const uint64_t at = static_cast<uint64_t>(first) + element;
    const PhiloxBlock block = numbers().block(at / 8);
    const uint32_t lane = static_cast<uint32_t>(at % 8);
    return ((block[lane / 2] >> (lane % 2 * 16)) & 0xffffu) >= threshold();
  }
};

// Throws Error unless the probability is at least 0 and below 1.
void check_dropout(const char* op, const Dropout& dropout);

// y = x + drop(branch), contiguous, equal shapes; x and y f32, branch f32, bf16 or, on a GPU, f16. y may
// be x, or branch if that is f32.
struct DropoutAddForward {
  Tensor x, branch;
  Dropout dropout;
  Tensor y;

  const char* name() const { return "dropout_add_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dbranch = drop'(dy) with the same mask: the gradient of the branch. That of x is dy itself. dy is f32;
// dbranch is f32 (it may be dy), bf16 or, on a GPU, f16.
struct DropoutBackward {
  Tensor dy;
  Dropout dropout;
  Tensor dbranch;

  const char* name() const { return "dropout_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
