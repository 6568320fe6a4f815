#include "longstride/ops/dropout.h"

namespace longstride {

void check_dropout(const char* op, const Dropout& dropout) {
  LONGSTRIDE_CHECK(dropout.probability >= 0 && dropout.probability < 1 && dropout.threshold() < 65536,
                   "{}: probability is {}, must be at least 0 and below 1 - 2^-17", op, dropout.probability);
  LONGSTRIDE_CHECK(dropout.first >= 0, "{}: first is {}, must not be negative", op, dropout.first);
}

OpWork DropoutAddForward::work() const { return {.bytes = x.bytes() + branch.bytes() + y.bytes()}; }

void DropoutAddForward::check(const Arguments& arguments) const {
  check_dropout(name(), dropout);
  arguments.flat("x", x, DType::f32, x.count());
  arguments.product("branch", branch.dtype);
  arguments.flat("branch", branch, branch.dtype, x.count());
  arguments.flat("y", y, DType::f32, x.count());
}

OpWork DropoutBackward::work() const { return {.bytes = dy.bytes() + dbranch.bytes()}; }

void DropoutBackward::check(const Arguments& arguments) const {
  check_dropout(name(), dropout);
  arguments.flat("dy", dy, DType::f32, dy.count());
  arguments.product("dbranch", dbranch.dtype);
  arguments.flat("dbranch", dbranch, dbranch.dtype, dy.count());
}

}  // namespace longstride
