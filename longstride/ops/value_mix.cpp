// Values mixed with the first block's: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/value_mix.h"

#include "longstride/ops/arguments.h"
#include "longstride/ops/profile.h"

namespace longstride {

namespace {

using Pass = ValueMix::Pass;

// `first` is written or read in f32 where it is a sum of gradients, else in the type of x.
bool sums_gradients(Pass pass) { return pass == Pass::backward || pass == Pass::backward_first; }

// Bytes that the op reads and writes.
int64_t moved(const ValueMix& t) {
  const int64_t x = t.x.bytes(), first = t.first.bytes();
  switch (t.pass) {
    case Pass::backward:
      return 2 * x + (t.adds ? 2 : 1) * first;
    case Pass::keep:
      return x + first;
    default:
      return 2 * x + first;
  }
}

// `x_name` and `first_name` are the caller's names of the two.
void run(const OpContext& context, const char* op, const char* x_name, const char* first_name,
         const ValueMix& t) {
  const OpTimer timer(op, {.bytes = moved(t)});
  const Arguments arguments(op, context.device);
  arguments.product(x_name, t.x.dtype);
  arguments.rows(x_name, t.x, t.x.dtype, {kAny, kAny});
  arguments.rows(first_name, t.first, sums_gradients(t.pass) ? DType::f32 : t.x.dtype,
                 {t.x.shape[0], t.x.shape[1]});
  LONGSTRIDE_CHECK(t.share >= 0 && t.share < 1, "{}: share is {}, must be from 0 up to below 1", op, t.share);
  if (on_gpu(context.device)) return cuda::value_mix(context, t);
  cpu::value_mix(context, t);
}

}  // namespace

void value_mix_forward(const OpContext& context, const Tensor& first, float share, const Tensor& x) {
  run(context, "value_mix_forward", "x", "first",
      {.pass = Pass::forward, .x = x, .first = first, .share = share});
}

void value_mix_backward(const OpContext& context, float share, bool adds, const Tensor& dx,
                        const Tensor& d_first) {
  run(context, "value_mix_backward", "dx", "d_first",
      {.pass = Pass::backward, .x = dx, .first = d_first, .share = share, .adds = adds});
}

void value_mix_backward_first(const OpContext& context, const Tensor& d_first, const Tensor& dx) {
  run(context, "value_mix_backward_first", "dx", "d_first",
      {.pass = Pass::backward_first, .x = dx, .first = d_first});
}

void value_mix_keep(const OpContext& context, const Tensor& x, const Tensor& first) {
  run(context, "value_mix_keep", "x", "first", {.pass = Pass::keep, .x = x, .first = first});
}

}  // namespace longstride
