// What becomes of single numbers in the ops that decoding has kernels of its own for. Training and decoding share
// these functions, with every rounding spelled out, so that neither drifts from the other.
#pragma once

#include "longstride/ops/cuda/common.cuh"
#include "longstride/ops/query_key.h"

namespace longstride::cuda {

// sigmoid(1.702 x) (contract: longstride/ops/activation.h). The hardware's powers of two and reciprocal are good to
// two units in the last place of f32, and twice as fast as the memory at 16 bits an element.
__device__ inline float activation_gate(float x) {
  constexpr float kFactor = -2.4554669595930156f;  // -1.702 / ln 2
  return __fdividef(1.0f, __fadd_rn(1.0f, exp2_fast(__fmul_rn(x, kFactor))));
}
__device__ inline float activated(float x) { return __fmul_rn(x, activation_gate(x)); }

// 1 / RMS of a head of queries or keys (contract: longstride/ops/query_key.h), from the mean of its squares.
__device__ inline float reciprocal_rms(float mean_square) {
  return rsqrtf(__fadd_rn(mean_square, kQueryKeyEpsilon));
}

// A channel of a pair turned by an angle: cosine x + sine other, where `other` is the second channel with its sign
// changed for the first of the two, and the first channel for the second.
__device__ inline float turned(float x, float other, float cosine, float sine) {
  return __fmaf_rn(other, sine, __fmul_rn(x, cosine));
}

// A value mixed with the first block's (contract: longstride/ops/value_mix.h); own = 1 - share.
__device__ inline float mixed_value(float x, float first, float share, float own) {
  return __fmaf_rn(first, share, __fmul_rn(x, own));
}

// A row's own element with its tap, x + weight x (contract: longstride/ops/causal_convolution.h).
__device__ inline float with_own_tap(float x, float weight) { return __fmaf_rn(weight, x, x); }

}  // namespace longstride::cuda
