#include "longstride/ops/adam.h"

namespace longstride {

OpWork AdamUpdate::work() const {
  return {.bytes = 2 * (w.bytes() + m.bytes() + v.bytes() + average.bytes()) + g.bytes() + compute.bytes()};
}

void AdamUpdate::check(const Arguments& arguments) const {
  LONGSTRIDE_CHECK(step.step >= 1, "adam_step: step is {}, must be 1 or more", step.step);
  LONGSTRIDE_CHECK(step.beta1 >= 0 && step.beta1 < 1 && step.beta2 >= 0 && step.beta2 < 1,
                   "adam_step: betas are {} and {}, must be in [0, 1)", step.beta1, step.beta2);
  const int64_t count = w.count();
  arguments.flat("w", w, DType::f32, count);
  arguments.flat("g", g, DType::f32, count);
  arguments.flat("m", m, DType::f32, count);
  arguments.flat("v", v, DType::f32, count);
  if (average) arguments.flat("average", average, DType::f32, count);
  if (!compute) return;
  const bool f16 = compute.dtype == DType::f16;
  LONGSTRIDE_CHECK(!f16 || on_gpu(arguments.device()),
                   "adam_step: compute is f16, must be bf16 (f16 needs a GPU)");
  arguments.flat("compute", compute, f16 ? DType::f16 : DType::bf16, count);
}

OpWork SumOfSquares::work() const { return {.bytes = x.bytes()}; }

void SumOfSquares::check(const Arguments& arguments) const { arguments.flat("x", x, DType::f32, x.count()); }

double sum_of_squares(const OpContext& context, const Tensor& x) {
  double sum = 0;
  run(context, SumOfSquares{x, &sum});
  return sum;
}

OpWork Convert::work() const { return {.bytes = from.bytes() + to.bytes()}; }

void Convert::check(const Arguments& arguments) const {
  arguments.product("from", from.dtype);
  arguments.flat("from", from, from.dtype, from.count());
  arguments.product("to", to.dtype);
  arguments.flat("to", to, to.dtype, from.count());
}

}  // namespace longstride
