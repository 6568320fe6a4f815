// Layer normalisation over the last axis (Ba, Kiros, Hinton, 2016): y = (x - mean) * rstd * gain + bias.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// rstd = 1 / sqrt(variance + epsilon), with the biased variance. Sums in f32 or better.
struct LayerNormForward {
  Tensor x;           // (M, d) f32
  Tensor gain, bias;  // (d) f32
  float epsilon;
  Tensor y;           // (M, d) f32, bf16 or, on a GPU, f16 =
  Tensor mean, rstd;  // (M) f32 =

  const char* name() const { return "layer_norm_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// y from the mean and rstd of LayerNormForward, with the same bits.
struct LayerNormApply {
  Tensor x;           // (M, d) f32
  Tensor gain, bias;  // (d) f32
  Tensor mean, rstd;  // (M) f32
  Tensor y;           // (M, d) f32, bf16 or, on a GPU, f16 =

  const char* name() const { return "layer_norm_apply"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dx is added to, as a residual connection needs it.
struct LayerNormBackward {
  Tensor dy;            // (M, d) f32, bf16 or, on a GPU, f16
  Tensor x, gain;       // (M, d) and (d) f32
  Tensor mean, rstd;    // (M) f32, from the forward
  Tensor dx;            // (M, d) f32 +=
  Tensor dgain, dbias;  // (d) f32 +=

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "layer_norm_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Bytes of scratch of the backward for x (rows, width).
int64_t layer_norm_backward_scratch_bytes(Device device, int64_t rows, int64_t width);

}  // namespace longstride
