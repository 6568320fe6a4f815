// A branch joins the residual stream, and the next branch reads it through a layer norm; and the reverse.
// Each call computes two ops with the same bits, in one pass over memory.
#pragma once

#include "longstride/ops/dropout.h"
#include "longstride/ops/layer_norm.h"

namespace longstride {

// DropoutAddForward{x, branch, dropout, y}, then LayerNormForward{y, gain, bias, epsilon, normed, mean,
// rstd}.
struct ResidualForward {
  Tensor x;       // (M, d) f32
  Tensor branch;  // (M, d) f32, bf16 or, on a GPU, f16
  Dropout dropout;
  Tensor gain, bias;  // (d) f32 of the layer norm
  float epsilon = 1e-5f;
  Tensor y;           // (M, d) f32 =, may be x
  Tensor normed;      // (M, d) = in the branch's dtype, may be branch
  Tensor mean, rstd;  // (M) f32 =

  const char* name() const { return "residual_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// LayerNormBackward{dy, x, gain, mean, rstd, dx, dgain, dbias}, then DropoutBackward{dx, dropout, dbranch}.
struct ResidualBackward {
  Tensor dy;            // (M, d) f32, bf16 or, on a GPU, f16: the gradient of the layer norm's output
  Tensor x, gain;       // (M, d) and (d) f32: the layer norm's input and gain
  Tensor mean, rstd;    // (M) f32
  Tensor dx;            // (M, d) f32 +=
  Tensor dgain, dbias;  // (d) f32 +=
  Dropout dropout;      // of the branch before
  Tensor dbranch;       // (M, d) = in the dtype of dy, may be dy

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "residual_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
