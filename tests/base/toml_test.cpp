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
  EXPECT_THAT(read("steps = 3"), testing::StartsWith("x.toml:1: unknown key steps"));
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
  apply_override("model.layers=64Ki", s.fields());
  EXPECT_EQ(s.layers, 65536);
  apply_override("model.layers=0_100", s.fields());
  EXPECT_EQ(s.layers, 100);
  apply_override("model.axes=[1Ki, 002,]", s.fields());
  EXPECT_EQ(s.axes, (std::vector<int64_t>{1024, 2}));
  apply_override("model.parts=[1, .5]", s.fields());
  EXPECT_EQ(s.parts, (std::vector<double>{1, 0.5}));
  apply_override("model.layers=0x10", s.fields());
  EXPECT_EQ(s.layers, 16);
  for (const char* wrong : {"model.layers=0", "model.layers=99999999999999999999", "model.layers=1.5",
                            "model.rate=nan", "model.rate=2", "model.axes=[1, x]", "model.axes=3"})
    EXPECT_THROW(apply_override(wrong, s.fields()), UsageError) << wrong;
  EXPECT_THAT(message([&] { apply_override("model.mode=caf\xe9", s.fields()); }),
              testing::HasSubstr("is not UTF-8"));
}

TEST(Toml, EveryCharacterOfAStringReadsBack) {
  struct Text {
    std::string mode;
    FieldList fields() {
      FieldList list;
      list.section("model");
      list.add("mode", mode, "anything");
      return list;
    }
  } written, read;
  for (int code = 1; code < 128; ++code) written.mode += static_cast<char>(code);
  written.mode += "gr\xC3\xBC";
  const std::string text = to_toml(written.fields(), false);
  for (const char c : text) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << int{c};
  read_toml_text(text, "x.toml", read.fields());
  EXPECT_EQ(read.mode, written.mode);
}

TEST(Toml, DeepAndHugeConfigsAreRefused) {
  Sample s;
  std::string deep = "a";
  for (int i = 0; i < 100000; ++i) deep += ".a";
  const auto read = [&](const std::string& text) {
    return message([&] { read_toml_text(text, "x.toml", s.fields()); });
  };
  EXPECT_THAT(read("\n" + deep + " = 1"), testing::HasSubstr("x.toml:2: a name of more than"));
  EXPECT_THAT(read("[" + deep + "]"), testing::HasSubstr("a name of more than"));
  EXPECT_THAT(read("x = {" + deep + " = 1}"), testing::HasSubstr("a name of more than"));
  EXPECT_THAT(read("x = 'a' \n" + deep + " = 1"), testing::HasSubstr("x.toml:2: a name of more than"));
  EXPECT_THAT(message([&] { apply_override("model.layers={" + deep + "=1}", s.fields()); }),
              testing::HasSubstr("a name of more than"));
  EXPECT_THAT(read(std::string(3000000, 'x')), testing::HasSubstr("has 3000000 bytes"));
  // Dots in strings, comments and numbers do not belong to names.
  EXPECT_EQ(read("# " + deep + "\n[model]\nparts = [" + std::string(200, ' ') + "0.1, 0.2, 0.3]\naxes = [1]"),
            "no error");
  EXPECT_THAT(read("[model]\nmode = \"\\\"" + deep + "\""), testing::HasSubstr("must be one of"));
  EXPECT_THAT(read("[model]\nmode = '''\n" + deep + "\n'''"), testing::HasSubstr("must be one of"));
}

}  // namespace
}  // namespace longstride
