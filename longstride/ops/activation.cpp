#include "longstride/ops/activation.h"

namespace longstride {

OpWork ActivationForward::work() const { return {.bytes = x.bytes() + y.bytes()}; }

void ActivationForward::check(const Arguments& arguments) const {
  arguments.product("x", x.dtype);
  arguments.flat("x", x, x.dtype, x.count());
  arguments.flat("y", y, x.dtype, x.count());
}

OpWork ActivationBackward::work() const { return {.bytes = dy.bytes() + x.bytes() + dx.bytes() + y.bytes()}; }

void ActivationBackward::check(const Arguments& arguments) const {
  arguments.product("x", x.dtype);
  arguments.flat("x", x, x.dtype, x.count());
  arguments.flat("dy", dy, x.dtype, x.count());
  arguments.flat("dx", dx, x.dtype, x.count());
  if (y) arguments.flat("y", y, x.dtype, x.count());
}

}  // namespace longstride
