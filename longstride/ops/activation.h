// The feed-forward activation f(x) = x * sigmoid(1.702 x) (paper: section 5.2).
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// y = f(x); any shape, contiguous, both f32, both bf16 or, on a GPU, both f16, with arithmetic in f32. y may
// be x.
void activation_forward(const OpContext& context, const Tensor& x, const Tensor& y);

// dx = dy * f'(x), all of one dtype as above. With a y, y = f(x) as well, to the bits of the forward. dx may
// be dy; y may be x.
void activation_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& dx,
                         const Tensor& y = {});

}  // namespace longstride
