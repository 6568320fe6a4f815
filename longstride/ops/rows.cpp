#include "longstride/ops/rows.h"

namespace longstride {

namespace {

void check_rows(const Arguments& arguments, const char* wide_name, const Tensor& wide, const char* dense_name,
                const Tensor& dense, const Tensor& numbers) {
  arguments.product(wide_name, wide.dtype);
  arguments.rows(wide_name, wide, wide.dtype, {kAny, kAny});
  arguments.dense("numbers", numbers, DType::i32, {kAny});
  arguments.dense(dense_name, dense, wide.dtype, {numbers.shape[0], wide.shape[1]});
}

}  // namespace

OpWork PickRows::work() const { return {.bytes = 2 * to.bytes() + numbers.bytes()}; }
void PickRows::check(const Arguments& arguments) const {
  check_rows(arguments, "from", from, "to", to, numbers);
}

OpWork PlaceRows::work() const { return {.bytes = (adds ? 3 : 2) * from.bytes() + numbers.bytes()}; }
void PlaceRows::check(const Arguments& arguments) const {
  check_rows(arguments, "to", to, "from", from, numbers);
}

}  // namespace longstride
