// The binary on a GPU, from training to a sample. Skipped where there is no GPU.
#include <nlohmann/json.hpp>

#include "longstride/device/backend.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;

class GpuCliTest : public CliTest {
 protected:
  void SetUp() override {
    const std::string reason = backend(DeviceKind::cuda).why_not(0);
    if (!reason.empty()) GTEST_SKIP() << reason;
    write_small_config();
  }

  nlohmann::json json_of(const std::string& arguments) {
    const Outcome outcome = longstride(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out, nullptr, false);
  }
};

TEST_F(GpuCliTest, TheMainJobFromEndToEnd) {
  const auto trained = json_of("train small.toml --run run --json --quiet --device cuda --set train.steps=3");
  EXPECT_EQ(trained["step"], 3);
  EXPECT_FALSE(trained.contains("loss_scale"));
  const auto bits_on = [&](const std::string& device) {
    return json_of("eval run --json --device " + device)["results"][0]["bits_per_byte"].get<double>();
  };
  EXPECT_NEAR(bits_on("cuda"), trained["best_bits"].get<double>(), 2e-3);
  EXPECT_NEAR(bits_on("cpu"), trained["best_bits"].get<double>(), 0.02);

  const Outcome sampled = longstride("sample run --length 48 --seed 4 --device cuda");
  ASSERT_EQ(sampled.code, 0) << sampled.err;
  EXPECT_GE(sampled.out.size(), 48u);
  EXPECT_EQ(longstride("sample run --length 48 --seed 4 --device cuda").out, sampled.out);

  const auto inspected = json_of("inspect run --json --device cuda");
  EXPECT_EQ(inspected["device"], "cuda:0");
  EXPECT_GT(inspected["memory"]["training"]["plans"], 0);
  EXPECT_THAT(longstride("inspect run --device cuda").out, HasSubstr(" are set aside for libraries"));
}

TEST_F(GpuCliTest, F16TellsItsLossScale) {
  const auto trained = json_of(
      "train small.toml --run run --json --quiet --device cuda --set train.steps=3 "
      "--set compute.precision=f16");
  EXPECT_GE(trained["loss_scale"], 1024);
  EXPECT_LE(trained["skipped_steps"], 3);
  EXPECT_THAT(read_bytes(folder_ / "run/metrics.jsonl"),
              testing::AllOf(HasSubstr("\"train/loss_scale\":"), HasSubstr("\"train/skipped_steps\":")));
  // On a CPU such a run says what to do.
  expect_complaint(longstride("eval run --device cpu"), 1, {"compute.precision = \"f16\"", "bf16"});
  EXPECT_EQ(longstride("eval run --device cpu --set compute.precision=f32").code, 0);
}

TEST_F(GpuCliTest, TooManySequencesAtATime) {
  expect_complaint(longstride("train small.toml --run run --device cuda --set train.batch=70000"), 1,
                   {"70000 sequences at a time", "65535", "train.micro_batch"});
}

}  // namespace
}  // namespace longstride
