// Configs that leave something open: what is chosen, printed and kept.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST_F(CliTest, AConfigOfNothingButDataLearns) {
  write_small_config();
  write("open.toml", "[data]\npath = 'text.txt'\n");
  Outcome outcome = longstride("inspect open.toml --device cpu");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  outcome = longstride("train open.toml --device cpu --set train.steps=60");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("chosen     model.context = "), HasSubstr("train.batch = "),
                                 Not(HasSubstr("the paper's"))));
  const std::string saved = read_bytes(folder_ / "runs/open/config.toml");
  EXPECT_THAT(saved, AllOf(HasSubstr("positions = \"rotary\""), HasSubstr("optimizer = \"muon\""),
                           HasSubstr("kind = \"text\""), Not(HasSubstr("kind = \"auto\""))));
  // The same config goes on with the run, even if it would choose other values now.
  outcome = longstride("train open.toml --device cpu --resume --set train.steps=70");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("(resumed)"));
  outcome = longstride("sample runs/open --length 40 --device cpu");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST_F(CliTest, ALengthThatIsSetIsTheOnlyOne) {
  write_small_config();
  write("open.toml", "[data]\npath = 'text.txt'\n");
  const auto saved = [&](const std::string& more) {
    std::filesystem::remove_all(folder_ / "run");
    const Outcome outcome = longstride("train open.toml --device cpu --run run --quiet " + more);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return read_bytes(folder_ / "run/config.toml");
  };
  EXPECT_THAT(saved(""), AllOf(HasSubstr("\nepochs = 12.0\n"), HasSubstr("\nminutes = 10.0\n")));
  EXPECT_THAT(saved("--set train.recipe=fast"), HasSubstr("\nlearning_rate = 0.006\n"));
  EXPECT_THAT(saved("--set train.steps=3"),
              AllOf(HasSubstr("\nepochs = 0.0\n"), HasSubstr("\nminutes = 0.0\n")));
  EXPECT_THAT(saved("--set train.epochs=1"),
              AllOf(HasSubstr("\nepochs = 1.0\n"), HasSubstr("\nminutes = 0.0\n")));
  EXPECT_THAT(saved("--set train.minutes=0.02"),
              AllOf(HasSubstr("\nepochs = 0.0\n"), HasSubstr("\nminutes = 0.02\n")));
}

TEST_F(CliTest, AConfigThatSetsARateIsToldOfTheOtherRecipe) {
  write_small_config();
  Outcome outcome = longstride("train small.toml --run a");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err,
              AllOf(HasSubstr("sets train.learning_rate"), HasSubstr("train.recipe = \"fast\"")));
  EXPECT_THAT(read_bytes(folder_ / "a/config.toml"), HasSubstr("optimizer = \"adam\""));
  outcome = longstride("train small.toml --run b --set train.recipe=fast");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(read_bytes(folder_ / "b/config.toml"),
              AllOf(HasSubstr("optimizer = \"muon\""), HasSubstr("learning_rate = 0.003")));
}

TEST_F(CliTest, AnOpenConfigNeedsItsData) {
  write("open.toml", "[data]\npath = 'absent.txt'\n");
  expect_complaint(longstride("inspect open.toml"), 1, {"absent.txt", "data.path"});
  expect_complaint(longstride("train open.toml"), 1, {"absent.txt"});
}

// A model with a given shape can be inspected before its data exist.
TEST_F(CliTest, InspectNeedsNoDataForAShapeThatIsNamed) {
  const std::string shape =
      "[model]\ncontext = 64\nlayers = 2\nheads = 2\nwidth = 32\npattern = 'fixed:16,4'\n";
  for (const char* data : {"", "[data]\npath = 'absent.txt'\n"}) {
    write("shape.toml", shape + data);
    const Outcome outcome = longstride("inspect shape.toml --device cpu");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("2 layers, 2 heads, width 32"));
  }
}

// Either both positions and optimizer are named, or the recipe.
TEST_F(CliTest, ADeliberateConfigIsToldNothing) {
  write_small_config("optimizer = 'muon'\n");
  EXPECT_THAT(longstride("train small.toml --run a --set model.positions=rotary").err,
              Not(HasSubstr("the paper's")));
  EXPECT_THAT(longstride("train small.toml --run b --set train.recipe=paper").err,
              Not(HasSubstr("the paper's")));
}

}  // namespace
}  // namespace longstride
