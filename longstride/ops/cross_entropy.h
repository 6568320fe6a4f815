// Softmax cross-entropy of rows of logits, in nats.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// logits (M, V) f32, targets (M) u8; loss (M) f32 = log-sum-exp(logits) - logits[target]. For a target of V
// or more, throws Error on the CPU. A GPU's memory is not read first; there the loss is NaN.
struct CrossEntropyForward {
  Tensor logits, targets, loss;

  const char* name() const { return "cross_entropy_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Both in one pass: loss (M) f32 = as above, and dlogits (M, V) f32 = scale * (softmax(logits) -
// onehot(target)). dlogits may be logits. `times`, if not empty, is one f32 by which scale is multiplied:
// the loss scale of f16, which stays on the device that decides it.
struct CrossEntropyBackward {
  Tensor logits, targets;
  float scale;
  Tensor loss, dlogits;
  Tensor times = {};

  const char* name() const { return "cross_entropy_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
