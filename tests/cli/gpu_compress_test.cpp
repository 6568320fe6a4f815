// Compressing on a GPU: the same GPU gets the file back, a CPU says that it cannot. Skipped where there is no
// GPU.
#include "longstride/device/backend.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

class GpuCompressTest : public CliTest {
 protected:
  void SetUp() override {
    const std::string reason = backend(DeviceKind::cuda).why_not(0);
    if (!reason.empty()) GTEST_SKIP() << reason;
    write_small_config();
  }
};

TEST_F(GpuCompressTest, ComesBackOnTheSameDeviceOnly) {
  ASSERT_EQ(longstride("train small.toml --run run --quiet --device cuda --set train.steps=3").code, 0);
  for (const char* weights : {"auto", "int8"}) {
    Outcome outcome =
        longstride(std::string("compress run text.txt --force --device cuda --weights ") + weights);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    outcome = longstride("decompress run text.txt.lsc --force -o again.txt");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(read_bytes(folder_ / "again.txt") == read_bytes(folder_ / "text.txt"));
  }
  expect_complaint(longstride("decompress run text.txt.lsc -o none.txt --device cpu"), 1,
                   {"does not reproduce", "that was on cuda:0", "this is cpu: "});
}

}  // namespace
}  // namespace longstride
