// The arithmetic of one element of Adam (contract: longstride/ops/adam.h), which the op for one tensor and
// the update of all tensors share.
#pragma once

#include "longstride/base/host_device.h"
#include "longstride/ops/adam.h"

namespace longstride::cuda {

// The step's numbers in f32. What is one minus a number near one is rounded from double: in f32 the
// difference would lose most of its digits.
struct AdamNumbers {
  float rate, beta1, beta2, epsilon, decay, ema, gradient_scale;
  float correction1, correction2;  // 1 / (1 - b1^t), 1 / (1 - b2^t)
  float rest1, rest2, ema_rest;    // 1 - beta1, 1 - beta2, 1 - ema
};

LONGSTRIDE_HOST_DEVICE inline AdamNumbers adam_numbers(const AdamStep& step) {
  const double t = static_cast<double>(step.step);
  AdamNumbers n;
  n.rate = static_cast<float>(step.rate);
  n.beta1 = static_cast<float>(step.beta1);
  n.beta2 = static_cast<float>(step.beta2);
  n.epsilon = static_cast<float>(step.epsilon);
  n.decay = static_cast<float>(step.decay);
  n.ema = static_cast<float>(step.ema);
  n.gradient_scale = static_cast<float>(step.gradient_scale);
  n.correction1 = static_cast<float>(1 / (1 - pow(step.beta1, t)));
  n.correction2 = static_cast<float>(1 / (1 - pow(step.beta2, t)));
  n.rest1 = static_cast<float>(1 - step.beta1);
  n.rest2 = static_cast<float>(1 - step.beta2);
  n.ema_rest = static_cast<float>(1 - step.ema);
  return n;
}

struct AdamElement {
  float w, m, v, average;
};

// Roundings are spelled out, so that every kernel gives the same bits.
__device__ inline AdamElement adam_element(AdamElement e, float g, const AdamNumbers& n) {
  const float gradient = __fmul_rn(g, n.gradient_scale);
  e.m = __fmaf_rn(n.beta1, e.m, __fmul_rn(n.rest1, gradient));
  e.v = __fmaf_rn(n.beta2, e.v, __fmul_rn(n.rest2, __fmul_rn(gradient, gradient)));
  const float root = __fadd_rn(__fsqrt_rn(__fmul_rn(e.v, n.correction2)), n.epsilon);
  const float step = __fdiv_rn(__fmul_rn(e.m, n.correction1), root);
  e.w = __fmaf_rn(-n.rate, __fmaf_rn(n.decay, e.w, step), e.w);
  e.average = __fmaf_rn(n.ema_rest, __fsub_rn(e.w, e.average), e.average);
  return e;
}

}  // namespace longstride::cuda
