// Parts of flat buffers, for the update of parameters.
#pragma once

#include "longstride/ops/update.h"

namespace longstride::cpu {

// Empty where `flat` is, or `offset` is negative.
inline Tensor slice_of(const Tensor& flat, int64_t offset, int64_t count) {
  if (!flat || offset < 0) return {};
  return Tensor(static_cast<char*>(flat.data) + offset * size_of(flat.dtype), flat.dtype, {count},
                flat.device);
}

inline double squares_of(const OpContext& context, const Tensor& x) {
  double sum = 0;
  cpu::compute(context, SumOfSquares{x, &sum});
  return sum;
}

}  // namespace longstride::cpu
