// The values of a block mixed with those of the first block (the value residual of ResFormer: Zhou and
// others, 2024), in place:
//   x = (1 - share) x + share first
// The first block's own values are gone where activations are recomputed, so there is an op that keeps them.
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// Matrices (M, d) whose rows may be part of wider ones, as values are of the projection: f32, bf16 or, on a
// GPU, f16, all of one type. Arithmetic is f32 and a result is rounded once. No scratch.

// x = (1 - share) x + share first, 0 <= share < 1.
void value_mix_forward(const OpContext& context, const Tensor& first, float share, const Tensor& x);

// dx holds the gradient of what the forward gave and becomes, in place, that of what it was given; `share`
// times it goes to d_first: written by the first call of a pass, else added. d_first (M, d) is f32 whatever
// the type of dx: it is a sum over all blocks, in which 16 bits would lose the small ones.
void value_mix_backward(const OpContext& context, float share, bool adds, const Tensor& dx,
                        const Tensor& d_first);

// dx = dx + d_first: what the other blocks owe the first one's own values.
void value_mix_backward_first(const OpContext& context, const Tensor& d_first, const Tensor& dx);

// first = x.
void value_mix_keep(const OpContext& context, const Tensor& x, const Tensor& first);

// One of the above as a device runs it.
struct ValueMix {
  enum class Pass { forward, backward, backward_first, keep };
  Pass pass = Pass::forward;
  Tensor x;      // x or dx
  Tensor first;  // first or d_first
  float share = 0;
  bool adds = false;
};

namespace cpu {
void value_mix(const OpContext& context, const ValueMix& t);
}  // namespace cpu
namespace cuda {
void value_mix(const OpContext& context, const ValueMix& t);
}  // namespace cuda

}  // namespace longstride
