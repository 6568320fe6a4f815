// Softmax cross-entropy of rows of logits, in nats.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// logits (M, V) f32, targets (M) u8; loss (M) f32 = log-sum-exp(logits) - logits[target]. If a target is V
// or more, throws Error on the CPU and gives NaN on a GPU, whose memory is not looked at first.
struct CrossEntropyForward {
  Tensor logits, targets, loss;

  const char* name() const { return "cross_entropy_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Both in one pass: loss (M) f32 = as above, and dlogits (M, V) f32 = scale * (softmax(logits) -
// onehot(target)). dlogits may be logits. `times`, if not empty, is one f32 that scale is multiplied by:
// the loss scale of f16, which lives where it is decided.
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
