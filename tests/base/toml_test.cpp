#include "longstride/base/toml.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

struct Sample {
  int64_t layers = 12;
  double rate = 0.5;
  bool tied = false;
  std::string mode = "paper";
  std::vector<int64_t> axes{1, 2};
  std::vector<double> parts{0.9, 0.1};
  FieldList fields() {
    FieldList list;
    list.section("model");
    list.add("layers", layers, "blocks").at_least(1);
    list.add("rate", rate, "a rate").at_least(0).at_most(1);
    list.add("tied", tied, "a switch");
    list.add("mode", mode, "a choice").one_of({"paper", "released"});
    list.add("axes", axes, "extents").at_least(1);
    list.add("parts", parts, "fractions");
    return list;
  }
};

std::string message(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Toml, WhatIsWrittenReadsBack) {
  Sample from;
  from.layers = 3, from.rate = 1, from.tied = true, from.mode = "released", from.axes = {7},
  from.parts = {1, 0.25};
  Sample to;
  read_toml_text(to_toml(from.fields(), true), "x.toml", to.fields());
  EXPECT_EQ(to_toml(to.fields(), false), to_toml(from.fields(), false));
  EXPECT_EQ(to.parts, (std::vector<double>{1, 0.25}));
}

TEST(Toml, ErrorsNameFileLineFieldAndCure) {
  Sample s;
  const auto read = [&](const char* text) {
    return message([&] { read_toml_text(text, "x.toml", s.fields()); });
  };
  EXPECT_EQ(read("[model]\nlayer = 3"), "x.toml:2: unknown key model.layer; did you mean model.layers?");
  EXPECT_EQ(read("[model]\n\nlayers = 'a'"), "x.toml:3: model.layers must be an integer");
  EXPECT_EQ(read("[model]\nlayers = 0"), "x.toml:2: model.layers = 0, must be at least 1");
  EXPECT_EQ(read("[model]\nrate = 1.5"), "x.toml:2: model.rate = 1.5, must lie between 0 and 1");
  EXPECT_EQ(read("[model]\nmode = 'x'"), "x.toml:2: model.mode = \"x\", must be one of: paper, released");
  EXPECT_EQ(read("[model]\naxes = [1, 'b']"), "x.toml:2: model.axes must be a list of integers");
  EXPECT_THAT(read("[model\n"), testing::StartsWith("x.toml:1: "));
}

TEST(Toml, Overrides) {
  Sample s;
  apply_override("model.mode=released", s.fields());
  apply_override("model.axes=[4, 5]", s.fields());
  apply_override("model.rate=1", s.fields());
  EXPECT_EQ(s.mode, "released");
  EXPECT_EQ(s.axes, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(s.rate, 1);
  EXPECT_THROW(apply_override("model.layers=x", s.fields()), UsageError);
  EXPECT_THROW(apply_override("model.layers", s.fields()), UsageError);
  EXPECT_THROW(apply_override("layers=1", s.fields()), UsageError);
}

}  // namespace
}  // namespace longstride
