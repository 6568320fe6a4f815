#include "longstride/sweep/vary.h"

#include <functional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string complaint(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}
std::string complaint_about(const std::string& text) {
  return complaint([&] { parse_vary(text, {}); });
}

TEST(Vary, ValuesStandAsInAConfig) {
  EXPECT_EQ(parse_vary("train.learning_rate=1e-3, 2e-3", {}),
            (Vary{"train.learning_rate", {"0.001", "0.002"}}));
  EXPECT_EQ(parse_vary(" train.batch =4,1Ki", {}), (Vary{"train.batch", {"4", "1024"}}));
  EXPECT_EQ(parse_vary("model.pattern=\"fixed:64,16\",dense,'strided:8'", {}),
            (Vary{"model.pattern", {"\"fixed:64,16\"", "\"dense\"", "\"strided:8\""}}));
  EXPECT_EQ(parse_vary("data.split=[0.9,0.1,0],[0.8,0.2,0]", {}).values.size(), 2u);
  EXPECT_EQ(parse_vary("data.path=a b.txt,\"\"", {}).values,
            (std::vector<std::string>{"\"a b.txt\"", "\"\""}));
}

TEST(Vary, WhatIsWrongIsSaid) {
  EXPECT_THAT(complaint_about("train.learning_rat=1,2"), HasSubstr("train.learning_rate"));
  EXPECT_THAT(complaint_about("train.learning_rat="), HasSubstr("train.learning_rate"));
  EXPECT_THAT(complaint_about("train.batch=4,x"), HasSubstr("--vary train.batch=x"));
  EXPECT_THAT(complaint_about("train.batch=4,-1"), HasSubstr("--vary train.batch=-1"));
  EXPECT_THAT(complaint_about("train.batch="), HasSubstr("is empty"));
  EXPECT_THAT(complaint_about("train.batch=4,,8"), HasSubstr("no value"));
  EXPECT_THAT(complaint_about("train.batch"), HasSubstr("expected section.key=value"));
  EXPECT_THAT(complaint_about("train.learning_rate=0.001,1e-3"), HasSubstr("is there twice"));
  EXPECT_THAT(complaint_about("model.pattern=fixed:64,16"), HasSubstr("stands in quotes"));
}

TEST(Vary, RunsAreAllCombinations) {
  const auto runs =
      runs_of_sweep({{"train.learning_rate", {"0.001", "0.002"}}, {"model.width", {"32", "64"}}});
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0].name, "learning_rate=0.001,width=32");
  EXPECT_EQ(runs[1].name, "learning_rate=0.001,width=64");
  EXPECT_EQ(runs[2].name, "learning_rate=0.002,width=32");
  EXPECT_THAT(runs[3].settings, ElementsAre("train.learning_rate=0.002", "model.width=64"));
  EXPECT_THAT(complaint([] {
                runs_of_sweep({{"train.batch", {"1"}}, {"train.batch", {"2"}}});
              }),
              HasSubstr("in two lists"));
  const std::vector<std::string> many(40, "1");
  EXPECT_THAT(complaint([&] { runs_of_sweep({{"a.a", many}, {"a.b", many}}); }), HasSubstr("more than 1000"));
}

TEST(Vary, NamesAreDifferentAndFitForAShell) {
  const std::string longest(300, 'x');
  const auto runs = runs_of_sweep(
      {{"data.path",
        {"\"a b\"", "\"a/b\"", "\"\"", "\"../$HOME\"", "\"" + longest + "1\"", "\"" + longest + "2\""}}});
  std::set<std::string> names;
  for (const SweepRun& run : runs) {
    names.insert(run.name);
    EXPECT_LT(run.name.size(), 130u);
    EXPECT_EQ(run.name.find_first_of("/ $\"'"), std::string::npos) << run.name;
  }
  EXPECT_EQ(names.size(), runs.size());
  EXPECT_EQ(runs[0].name, "path=a-b");
  EXPECT_EQ(runs[2].name, "path=none");
}

}  // namespace
}  // namespace longstride
