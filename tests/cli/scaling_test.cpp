// `longstride scaling` on runs that were trained here.
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

using ScalingTest = CliTest;

TEST_F(ScalingTest, RunsOfASweepFollowLawsAndBrokenOnesAreNamed) {
  write_small_config();
  ASSERT_EQ(longstride("sweep small.toml --vary model.width=8,16,32,64 --set train.steps=60").code, 0);
  fs::create_directories(folder_ / "runs/small/broken/checkpoints");
  write("runs/small/broken/config.toml", "[model]\nwidth = 'x'\n");
  fs::copy(folder_ / "runs/small/width=8", folder_ / "runs/small/half", fs::copy_options::recursive);
  fs::remove_all(folder_ / "runs/small/half/checkpoints");

  const Outcome outcome = longstride("scaling runs/small -o laws.svg");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("\nparameters"));
  EXPECT_THAT(outcome.out, HasSubstr("\nL(N) = "));
  EXPECT_THAT(outcome.err, HasSubstr("left out   runs/small/broken: "));
  EXPECT_THAT(outcome.err, HasSubstr("left out   runs/small/half: it is not finished"));
  EXPECT_THAT(outcome.err, HasSubstr("no law     of data: 1 run with different data, at least 4 are needed"));
  EXPECT_THAT(read_bytes(folder_ / "laws.svg"), testing::StartsWith("<svg "));

  // A run that is named twice counts once.
  const Outcome json = longstride("scaling runs runs/small --json");
  const auto laws = nlohmann::json::parse(json.out);
  EXPECT_EQ(laws["runs"].size(), 4u);
  EXPECT_EQ(laws["left_out"].size(), 2u);
  const auto& law = laws["laws"]["parameters"];
  EXPECT_TRUE(law["fitted"]);
  EXPECT_EQ(law["runs"].size(), 4u);
  EXPECT_GT(law["exponent"].get<double>(), 0);
  EXPECT_LE(law["exponent_interval"][0], law["exponent_interval"][1]);
  EXPECT_FALSE(laws["laws"]["data"]["fitted"]);
  EXPECT_EQ(longstride("scaling runs --json").out, json.out);

  // One of them gets more data than the others.
  EXPECT_THAT(outcome.err, testing::Not(HasSubstr("differ in data too")));
  ASSERT_EQ(longstride("train 'runs/small/width=64' --quiet --set train.steps=90").code, 0);
  EXPECT_THAT(longstride("scaling runs").err,
              HasSubstr("the law of parameters differ in data too, by up to 1.5 times"));

  fs::remove_all(folder_ / "runs/small/width=64");
  const Outcome few = longstride("scaling runs");
  EXPECT_EQ(few.code, 1);
  EXPECT_THAT(
      few.err,
      HasSubstr("longstride: no law can be fitted to 3 runs: 3 runs with different parameters, at least 4"));
}

TEST_F(ScalingTest, WrongCommandLines) {
  expect_complaint(longstride("scaling"), 2, {"run"});
  expect_complaint(longstride("scaling nowhere"), 1, {"nowhere"});
  fs::create_directories(folder_ / "empty");
  expect_complaint(longstride("scaling empty"), 1, {"empty: there is no run in it"});
  expect_complaint(longstride("scaling empty -o laws.png"), 2, {".svg"});
}

}  // namespace
}  // namespace longstride
