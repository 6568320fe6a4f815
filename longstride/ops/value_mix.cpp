#include "longstride/ops/value_mix.h"

namespace longstride {

namespace {

// Checks `x` and `first`, under the names that the caller has for them.
void check_pair(const Arguments& arguments, const char* x_name, const Tensor& x, const char* first_name,
                const Tensor& first, DType first_dtype) {
  arguments.product(x_name, x.dtype);
  arguments.rows(x_name, x, x.dtype, {kAny, kAny});
  arguments.rows(first_name, first, first_dtype, {x.shape[0], x.shape[1]});
}

void check_share(const Arguments& arguments, float share) {
  LONGSTRIDE_CHECK(share >= 0 && share < 1, "{}: share is {}, must be from 0 up to below 1", arguments.op(),
                   share);
}

}  // namespace

OpWork ValueMixForward::work() const { return {.bytes = 2 * x.bytes() + first.bytes()}; }

void ValueMixForward::check(const Arguments& arguments) const {
  check_pair(arguments, "x", x, "first", first, x.dtype);
  check_share(arguments, share);
}

OpWork ValueMixBackward::work() const { return {.bytes = 2 * dx.bytes() + (adds ? 2 : 1) * d_first.bytes()}; }

void ValueMixBackward::check(const Arguments& arguments) const {
  check_pair(arguments, "dx", dx, "d_first", d_first, DType::f32);
  check_share(arguments, share);
}

OpWork ValueMixBackwardFirst::work() const { return {.bytes = 2 * dx.bytes() + d_first.bytes()}; }

void ValueMixBackwardFirst::check(const Arguments& arguments) const {
  check_pair(arguments, "dx", dx, "d_first", d_first, DType::f32);
}

OpWork ValueMixKeep::work() const { return {.bytes = x.bytes() + first.bytes()}; }

void ValueMixKeep::check(const Arguments& arguments) const {
  check_pair(arguments, "x", x, "first", first, x.dtype);
}

}  // namespace longstride
