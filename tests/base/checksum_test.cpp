#include "longstride/base/checksum.h"

#include <string>

#include <gtest/gtest.h>

namespace longstride {
namespace {

TEST(Checksum, IsXxh3With128Bits) {
  // The algorithm's own test suite prints this value for no bytes.
  EXPECT_EQ(checksum_of(nullptr, 0), "99aa06d3014798d86001c324468d497f");
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 31);
  for (const size_t cut : {0u, 1u, 64u, 1025u, 5000u}) {
    Checksum checksum;
    checksum.update(text.data(), static_cast<int64_t>(cut));
    checksum.update(text.data() + cut, static_cast<int64_t>(text.size() - cut));
    EXPECT_EQ(checksum.hex(), checksum_of(text.data(), static_cast<int64_t>(text.size())));
  }
}

}  // namespace
}  // namespace longstride
