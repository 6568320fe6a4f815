// One step of Adam in any precision.
#pragma once

#include <cmath>
#include <cstdint>

#include "longstride/ops/adam.h"

namespace longstride::reference {

// `average` may be null.
template <class T>
void adam_step(const AdamStep& step, int64_t count, T* w, const T* g, T* m, T* v, T* average) {
  using std::sqrt;
  const T beta1 = T(step.beta1), beta2 = T(step.beta2), ema = T(step.ema);
  const T correction1 = T(1 - std::pow(step.beta1, static_cast<double>(step.step)));
  const T correction2 = T(1 - std::pow(step.beta2, static_cast<double>(step.step)));
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = T(step.gradient_scale) * g[i];
    m[i] = beta1 * m[i] + T(1 - step.beta1) * gradient;
    v[i] = beta2 * v[i] + T(1 - step.beta2) * gradient * gradient;
    w[i] -= T(step.rate) *
            (m[i] / correction1 / (sqrt(v[i] / correction2) + T(step.epsilon)) + T(step.decay) * w[i]);
    if (average) average[i] = ema * average[i] + T(1 - step.ema) * w[i];
  }
}

}  // namespace longstride::reference
