// A causal depthwise convolution over the positions of a sequence, added to its own input, channel by
// channel:
//   y[t] = x[t] + w[0] x[t] + w[1] x[t - 1] + w[2] x[t - 2] + w[3] x[t - 3]
// Rows before a sequence's first are 0. (The canon layers of Allen-Zhu, 2025, and the short convolutions of
// So and others, 2021.)
#pragma once

#include <span>

#include "longstride/ops/run.h"

namespace longstride {

inline constexpr int64_t kConvolutionTaps = 4;

// Matrices (M, d) hold M / positions sequences one after another: f32, bf16 or, on a GPU, f16, all of one
// type. w (kConvolutionTaps, d) is f32. Arithmetic is f32, and each result is rounded once.

// y = ...; y is not x.
struct CausalConvolutionForward {
  Tensor x, w;
  int64_t positions;
  Tensor y;

  const char* name() const { return "causal_convolution_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// On entry dy is the gradient of the forward's output, and x its input. On return x holds the gradient of
// the input, in place. dw += the gradient of w.
struct CausalConvolutionBackward {
  Tensor dy, w;
  int64_t positions;
  Tensor x, dw;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "causal_convolution_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Bytes of scratch of the backward for x (rows, width).
int64_t causal_convolution_scratch_bytes(Device device, int64_t rows, int64_t width);

// For sampling, in f32: one position in each of some sequences. Row m of x and y (M, d) is at positions[m]
// of sequence sequences[m]. recent (S, kConvolutionTaps, d) keeps the last rows of x of every sequence; the
// row of position p is in slot p mod kConvolutionTaps. The rows of this call are added to it.
struct CausalConvolutionAt {
  Tensor x, w;
  std::span<const int64_t> sequences, positions;
  Tensor recent, y;

  static constexpr bool kOnCpuOnly = true;
  const char* name() const { return "causal_convolution_at"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
