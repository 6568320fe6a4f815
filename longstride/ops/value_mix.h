// The values of a block mixed with those of the first block (the value residual of ResFormer: Zhou and
// others, 2024), in place:
//   x = (1 - share) x + share first
// The first block's own values are gone where activations are recomputed, so there is an op that keeps them.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// Matrices (M, d) whose rows may be part of wider ones, as values are of the projection: f32, bf16 or, on a
// GPU, f16, all of one type. Arithmetic is f32 and a result is rounded once.

// x = (1 - share) x + share first, 0 <= share < 1.
struct ValueMixForward {
  Tensor first;
  float share;
  Tensor x;

  const char* name() const { return "value_mix_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dx holds the gradient of what the forward gave and becomes, in place, that of what it was given; `share`
// times it goes to d_first: written by the first call of a pass, else added. d_first (M, d) is f32 whatever
// the type of dx: it is a sum over all blocks, in which 16 bits would lose the small ones.
struct ValueMixBackward {
  float share;
  bool adds;
  Tensor dx, d_first;

  const char* name() const { return "value_mix_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dx = dx + d_first: what the other blocks owe the first one's own values.
struct ValueMixBackwardFirst {
  Tensor d_first, dx;

  const char* name() const { return "value_mix_backward_first"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// first = x.
struct ValueMixKeep {
  Tensor x, first;

  const char* name() const { return "value_mix_keep"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
