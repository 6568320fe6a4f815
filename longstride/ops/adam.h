// Adam (Kingma, Ba, 2015) with decoupled weight decay (Loshchilov, Hutter, 2019) and an exponential moving
// average of the weights, in one pass over the parameters.
//   g' = gradient_scale * g;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
//   w -= rate * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay * w);  e = ema * e + (1 - ema) * w
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

struct AdamStep {
  int64_t step = 1;  // t, from 1
  double rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double decay = 0;
  double ema = 0;             // 0: no average
  double gradient_scale = 1;  // 1 / accumulated weight, and clipping
};

// The step of flat parameters: all f32, contiguous, equal counts; w, m, v in place. `average` may be empty;
// `compute` is empty or a copy of w in bf16 or, on a GPU, f16, that is rewritten.
struct AdamUpdate {
  const AdamStep& step;
  Tensor w, g, m, v;
  Tensor average, compute;

  const char* name() const { return "adam_step"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// *sum = the sum of squares of x, f32 and contiguous, in double, the same bits for any number of threads. Not
// finite if an element is not. On a GPU the call waits for it. `sum` lies in the CPU's memory.
struct SumOfSquares {
  Tensor x;
  double* sum;

  const char* name() const { return "sum_of_squares"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};
double sum_of_squares(const OpContext& context, const Tensor& x);

// to = from in the dtype of `to`, each f32, bf16 or, on a GPU, f16: rounded to nearest, ties to even, or
// exact. NaN stays NaN, if not the same one.
struct Convert {
  Tensor from, to;

  const char* name() const { return "convert"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
