// Adam (Kingma, Ba, 2015) with decoupled weight decay (Loshchilov, Hutter, 2019) and an exponential moving
// average of the weights, in one pass over the parameters.
//   g' = gradient_scale * g;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
//   w -= rate * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay * w);  e = ema * e + (1 - ema) * w
#pragma once

#include "longstride/ops/context.h"

namespace longstride {

struct AdamStep {
  int64_t step = 1;  // t, from 1
  double rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double decay = 0;
  double ema = 0;             // 0: no average
  double gradient_scale = 1;  // 1 / accumulated weight, and clipping
};

// All f32, contiguous, equal counts; w, m, v +=-like in place. `average` may be empty; `compute` is empty or
// a copy of w in bf16 or, on a GPU, f16, that is rewritten.
void adam_step(const OpContext& context, const AdamStep& step, const Tensor& w, const Tensor& g,
               const Tensor& m, const Tensor& v, const Tensor& average, const Tensor& compute);

// Sum of squares in double, the same bits for any number of threads. Not finite if an element is not. On a
// GPU the call waits for it.
double sum_of_squares(const OpContext& context, const Tensor& x);

// to = from in the dtype of `to`, each f32, bf16 or, on a GPU, f16: rounded to nearest, ties to even, or
// exact. NaN stays NaN, if not the same one.
void convert(const OpContext& context, const Tensor& from, const Tensor& to);

}  // namespace longstride
