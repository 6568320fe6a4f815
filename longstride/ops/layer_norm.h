// Layer normalisation over the last axis (Ba, Kiros, Hinton, 2016): y = (x - mean) * rstd * gain + bias.
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

// x (M, d) f32, gain and bias (d) f32; y (M, d) f32, bf16 or, on a GPU, f16 =, mean and rstd (M) f32 = with
// rstd = 1 / sqrt(variance + epsilon), the variance being the biased one. Sums in f32 or better.
void layer_norm_forward(const OpContext& context, const Tensor& x, const Tensor& gain, const Tensor& bias,
                        float epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd);

// y from saved mean and rstd, the same bits as layer_norm_forward gave.
void layer_norm_apply(const OpContext& context, const Tensor& x, const Tensor& gain, const Tensor& bias,
                      const Tensor& mean, const Tensor& rstd, const Tensor& y);

// dx (M, d) f32 +=, dgain and dbias (d) f32 +=, for dy (M, d) in a dtype of y and the saved mean and rstd.
// Adding to dx is what a residual connection needs. Scratch: layer_norm_backward_scratch_bytes(M, d).
void layer_norm_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& gain,
                         const Tensor& mean, const Tensor& rstd, const Tensor& dx, const Tensor& dgain,
                         const Tensor& dbias);

// Bytes of context.scratch that layer_norm_backward needs for x (rows, width).
int64_t layer_norm_backward_scratch_bytes(Device device, int64_t rows, int64_t width);

}  // namespace longstride
