// Softmax cross-entropy of rows of logits, in nats.
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// logits (M, V) f32, targets (M) u8; loss (M) f32 = log-sum-exp(logits) - logits[target]. If a target is V
// or more, throws Error on the CPU and gives NaN on a GPU, whose memory is not looked at first.
void cross_entropy_forward(const OpContext& context, const Tensor& logits, const Tensor& targets,
                           const Tensor& loss);

// Both in one pass: loss (M) f32 = as above, and dlogits (M, V) f32 = scale * (softmax(logits) -
// onehot(target)). dlogits may be logits. `times`, if not empty, is one f32 that scale is multiplied with:
// the loss scale of f16, which lives where it is decided.
void cross_entropy_backward(const OpContext& context, const Tensor& logits, const Tensor& targets,
                            float scale, const Tensor& loss, const Tensor& dlogits, const Tensor& times = {});

}  // namespace longstride
