// `longstride inspect RUN --attention FILE`, as a user calls it.
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class InspectAttentionTest : public CliTest {
 protected:
  void SetUp() override {
    environment_ = "OMP_NUM_THREADS=1";
    write_small_config();
    ASSERT_EQ(longstride("train small.toml --quiet --run run --set train.steps=2").code, 0);
  }
};

TEST_F(InspectAttentionTest, DrawsTheHeadsAndSaysWhatTheyLookAt) {
  const Outcome outcome = longstride("inspect run --attention heads.png --layer 2");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("layer      2 of 2"));
  EXPECT_THAT(outcome.out, HasSubstr("summary:16,4"));
  EXPECT_THAT(read_bytes(folder_ / "heads.png"), StartsWith("\x89PNG"));
  const Outcome json = longstride("inspect run --attention heads.svg --json");
  EXPECT_EQ(json.code, 0) << json.err;
  EXPECT_THAT(read_bytes(folder_ / "heads.svg"), HasSubstr("</svg>"));
  const auto found = nlohmann::json::parse(json.out);
  EXPECT_EQ(found["layer"], 1);
  ASSERT_EQ(found["heads"].size(), 2u);
  for (const auto& head : found["heads"]) {
    double through = 0;
    for (const auto& term : head["terms"]) through += term["weight"].get<double>();
    EXPECT_NEAR(through, 1, 1e-6);
    EXPECT_LE(head["effective_keys"].get<double>(), head["keys"].get<double>());
  }
}

TEST_F(InspectAttentionTest, RefusesWhatItCannotShow) {
  expect_complaint(longstride("inspect run --attention heads.gif"), 2, {"heads.gif", ".png or .svg"});
  expect_complaint(longstride("inspect run --attention heads.png --layer 3"), 2,
                   {"--layer 3: the model has layers 1 to 2"});
  expect_complaint(longstride("inspect small.toml --attention heads.png"), 1, {"small.toml", "not a run"});
  expect_complaint(longstride("inspect run --attention nowhere/heads.png"), 1,
                   {"--attention nowhere/heads.png", "no folder nowhere"});
  expect_complaint(longstride("inspect run --attention heads.png --time"), 2,
                   {"--attention", "no other question"});
  write("short.txt", std::string(60, 'a'));
  expect_complaint(
      longstride("inspect run --attention heads.png --set data.path=" + folder_.path() + "/short.txt"), 1,
      {"54 bytes", "fewer than the context of 64"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "heads.png"));
}

}  // namespace
}  // namespace longstride
