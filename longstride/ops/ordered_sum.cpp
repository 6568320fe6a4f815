#include "longstride/ops/ordered_sum.h"

namespace longstride {

OpWork OrderedSum::work() const { return {.bytes = parts.bytes() + 2 * sum.bytes()}; }

void OrderedSum::check(const Arguments& arguments) const {
  arguments.rows("parts", parts, DType::f32, {kAny, kAny});
  arguments.dense("sum", sum, DType::f32, {parts.shape[1]});
  LONGSTRIDE_CHECK(place >= 0 && place <= parts.shape[0], "{}: place is {}, must be from 0 to {}",
                   arguments.op(), place, parts.shape[0]);
}

}  // namespace longstride
