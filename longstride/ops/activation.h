// The feed-forward activation f(x) = x * sigmoid(1.702 x) (paper: section 5.2).
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// y = f(x); any shape, contiguous. Both f32, both bf16 or, on a GPU, both f16, with arithmetic in f32. y may
// be x.
struct ActivationForward {
  Tensor x, y;

  const char* name() const { return "activation_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dx = dy * f'(x), all of one dtype as above. With a y, also y = f(x), with the bits of the forward. dx may
// be dy; y may be x.
struct ActivationBackward {
  Tensor dy, x, dx;
  Tensor y = {};

  const char* name() const { return "activation_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
