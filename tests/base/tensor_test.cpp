#include "longstride/base/tensor.h"

#include <vector>

#include <gtest/gtest.h>

namespace longstride {
namespace {

TEST(Tensor, ColumnsSplitIntoHeadsAndBatch) {
  std::vector<float> storage(6 * 12);
  for (size_t i = 0; i < storage.size(); ++i) storage[i] = static_cast<float>(i);
  const Tensor packed(storage.data(), DType::f32, {6, 12});
  const Tensor keys = packed.columns(4, 8).split_last(2).split_first(3);  // (3, 2, 2, 2)
  EXPECT_EQ(keys.describe(), "f32 (3, 2, 2, 2)");
  EXPECT_FALSE(keys.contiguous());
  const View<float, 4> view = keys.view<float, 4>();
  for (int b = 0; b < 3; ++b)
    for (int n = 0; n < 2; ++n)
      for (int h = 0; h < 2; ++h)
        for (int d = 0; d < 2; ++d)
          EXPECT_EQ(view(b, n, h, d), static_cast<float>((b * 2 + n) * 12 + 4 + h * 2 + d));
}

TEST(Tensor, WrongUseNamesTheTensor) {
  std::vector<float> storage(8);
  const Tensor tensor(storage.data(), DType::f32, {2, 4});
  try {
    tensor.as<double>();
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "tensor f32 (2, 4) read as f64");
  }
  EXPECT_THROW(tensor.reshaped({3, 3}), Error);
  EXPECT_THROW(tensor.rows(1, 3), Error);
  EXPECT_THROW(tensor.split_last(3), Error);
  EXPECT_THROW(tensor.columns(0, 2).reshaped({4}), Error);
}

}  // namespace
}  // namespace longstride
