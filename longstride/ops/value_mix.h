// The values of a block mixed with those of the first block (the value residual of ResFormer: Zhou and
// others, 2024), in place:
//   x = (1 - share) x + share first
// Where activations are recomputed, the first block's own values are overwritten. So there is an op that
// keeps them.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// Matrices (M, d), whose rows may be part of wider ones, as values are part of the projection: f32, bf16 or,
// on a GPU, f16, all of one type. Arithmetic is f32, and each result is rounded once.

// x = (1 - share) x + share first, 0 <= share < 1.
struct ValueMixForward {
  Tensor first;
  float share;
  Tensor x;

  const char* name() const { return "value_mix_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// On entry dx holds the gradient of the forward's output; on return that of its input, in place. `share`
// times the former goes to d_first: the first call of a pass overwrites it, later ones add. d_first (M, d)
// is f32 whatever the type of dx: it is a sum over all blocks, in which 16 bits would lose small terms.
struct ValueMixBackward {
  float share;
  bool adds;
  Tensor dx, d_first;

  const char* name() const { return "value_mix_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dx = dx + d_first: adds the other blocks' gradients of the first block's values.
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
