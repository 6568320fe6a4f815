// A causal depthwise convolution over the positions of a sequence, added to what it reads:
//   y[t] = x[t] + w[0] x[t] + w[1] x[t - 1] + w[2] x[t - 2] + w[3] x[t - 3]
// channel by channel, where rows before a sequence's first are 0 (the canon layers of Allen-Zhu, 2025, and
// the short convolutions of So and others, 2021).
#pragma once

#include <span>

#include "longstride/ops/context.h"

namespace longstride {

inline constexpr int64_t kConvolutionTaps = 4;

// Matrices (M, d) hold M / positions sequences one after another: f32, bf16 or, on a GPU, f16, all of one
// type. w (kConvolutionTaps, d) f32. Arithmetic is f32 and a result is rounded once.

// y = ...; y is not x.
void causal_convolution_forward(const OpContext& context, const Tensor& x, const Tensor& w, int64_t positions,
                                const Tensor& y);

// From dy and what the forward was given in x: x becomes, in place, the gradient of that, and dw += that of
// w. Scratch: causal_convolution_scratch_bytes(M, d).
void causal_convolution_backward(const OpContext& context, const Tensor& dy, const Tensor& w,
                                 int64_t positions, const Tensor& x, const Tensor& dw);

// Bytes of context.scratch that the backward needs for x (rows, width).
int64_t causal_convolution_scratch_bytes(Device device, int64_t rows, int64_t width);

// One position of each of some sequences, for sampling, on the CPU, in f32: row m of x and y (M, d) stands at
// positions[m] of sequence sequences[m]. recent (S, kConvolutionTaps, d) keeps the last rows of x of every
// sequence, that of position p in slot p mod kConvolutionTaps, and takes these.
void causal_convolution_at(const OpContext& context, const Tensor& x, const Tensor& w,
                           std::span<const int64_t> sequences, std::span<const int64_t> positions,
                           const Tensor& recent, const Tensor& y);

namespace cpu {
void causal_convolution_forward(const OpContext& context, const Tensor& x, const Tensor& w, int64_t positions,
                                const Tensor& y);
void causal_convolution_backward(const OpContext& context, const Tensor& dy, const Tensor& w,
                                 int64_t positions, const Tensor& x, const Tensor& dw);
int64_t causal_convolution_scratch_bytes(int64_t rows, int64_t width);
void causal_convolution_at(const OpContext& context, const Tensor& x, const Tensor& w,
                           std::span<const int64_t> sequences, std::span<const int64_t> positions,
                           const Tensor& recent, const Tensor& y);
}  // namespace cpu
namespace cuda {
void causal_convolution_forward(const OpContext& context, const Tensor& x, const Tensor& w, int64_t positions,
                                const Tensor& y);
void causal_convolution_backward(const OpContext& context, const Tensor& dy, const Tensor& w,
                                 int64_t positions, const Tensor& x, const Tensor& dw);
int64_t causal_convolution_scratch_bytes(int64_t rows, int64_t width);
}  // namespace cuda

}  // namespace longstride
