// The type of a tensor's elements, on the CPU.
#pragma once

#include "longstride/base/dtype.h"

namespace longstride::verify {

// Calls action(T{}) with the type of the elements: float, Bf16 or F16.
template <class Action>
void with_element(DType dtype, const Action& action) {
  if (dtype == DType::bf16) return action(Bf16{});
  if (dtype == DType::f16) return action(F16{});
  action(float{});
}

}  // namespace longstride::verify
