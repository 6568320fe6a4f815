// Where a branch joins the residual stream and the next one reads it through a layer norm, and the reverse.
// Each call computes what two ops do, to the same bits, in one pass over memory.
#pragma once

#include "longstride/ops/dropout.h"

namespace longstride {

struct ResidualForward {
  Tensor x;       // (M, d) f32
  Tensor branch;  // (M, d) f32, bf16 or, on a GPU, f16
  Dropout dropout;
  Tensor gain, bias;  // (d) f32 of the layer norm
  float epsilon = 1e-5f;
  Tensor y;           // (M, d) f32 =, may be x
  Tensor normed;      // (M, d) = in the branch's dtype, may be branch
  Tensor mean, rstd;  // (M) f32 =
};

// dropout_add_forward(x, branch, dropout, y), then layer_norm_forward(y, gain, bias, epsilon, normed, mean,
// rstd).
void residual_forward(const OpContext& context, const ResidualForward& t);

struct ResidualBackward {
  Tensor dy;            // (M, d) f32, bf16 or, on a GPU, f16: of what the layer norm gave
  Tensor x, gain;       // (M, d) and (d) f32: what it read
  Tensor mean, rstd;    // (M) f32
  Tensor dx;            // (M, d) f32 +=
  Tensor dgain, dbias;  // (d) f32 +=
  Dropout dropout;      // of the branch before
  Tensor dbranch;       // (M, d) = in the dtype of dy, may be dy
};

// layer_norm_backward(dy, x, gain, mean, rstd, dx, dgain, dbias), then dropout_backward(dx, dropout,
// dbranch). Scratch: layer_norm_backward_scratch_bytes(M, d).
void residual_backward(const OpContext& context, const ResidualBackward& t);

}  // namespace longstride
