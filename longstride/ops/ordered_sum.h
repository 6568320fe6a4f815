// Adds up tensors in a fixed order, so that a sum has the same bits whoever computes it: gradients of several
// micro-batches, or of several ranks.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// sum = parts[0] + .. + parts[place - 1] + sum + parts[place] + .., from the left, each addition rounded to f32.
// So `sum` itself is number `place` of the addends.
struct OrderedSum {
  Tensor parts;       // (P, n) f32, whose rows may be part of wider ones
  int64_t place = 0;  // 0 to P
  Tensor sum;         // (n) f32, contiguous; in place

  const char* name() const { return "ordered_sum"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
