#include "longstride/ops/rows.h"

#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Rows, AgreeWithTheReference) { expect_all_pass(verify::check_rows({}, verify::Effort::thorough)); }

TEST(Rows, RefuseWrongTensors) {
  std::vector<float> wide(6), dense(4);
  std::vector<int32_t> numbers{2, 0};
  EXPECT_THAT(error_of([&] {
                run({}, PickRows{matrix(wide, 2, 3), flat(numbers), matrix(dense, 2, 2)});
              }),
              testing::HasSubstr("to is f32 (2, 2), must be f32 (2, 3)"));
  EXPECT_THAT(error_of([&] {
                run({}, PlaceRows{matrix(dense, 2, 2), flat(dense), matrix(wide, 3, 2)});
              }),
              testing::HasSubstr("numbers is f32 (4), must be i32"));
}

}  // namespace
}  // namespace longstride
