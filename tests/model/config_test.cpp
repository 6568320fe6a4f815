// Shapes, parameter tables, initial weights and the messages of impossible configurations.
#include "longstride/model/config.h"

#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/model/cost.h"
#include "longstride/model/parameters.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig cifar10() {
  ModelConfig config;
  config.context = 3072, config.layers = 128, config.heads = 2, config.width = 256;
  config.qk_width = 128, config.feed_forward = 512;
  config.pattern = "strided:96", config.position_axes = {32, 32, 3};
  return config;
}

ModelConfig enwik8() {
  ModelConfig config;
  config.context = 12288, config.layers = 30, config.heads = 8, config.width = 512;
  config.pattern = "fixed:128,32", config.position_axes = {96, 128};
  return config;
}

ModelConfig imagenet64() {
  ModelConfig config;
  config.context = 12288, config.layers = 48, config.heads = 16, config.width = 512;
  config.pattern = "strided:128", config.position_axes = {64, 64, 3};
  return config;
}

std::string message_of(const ModelConfig& config) {
  try {
    config.check();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ModelConfig, ThePapersModelsHaveThePapersSizes) {
  EXPECT_NEAR(count_parameters(cifar10()) / 1e6, 59.2, 0.05);
  EXPECT_NEAR(count_parameters(enwik8()) / 1e6, 94.9, 0.05);
  EXPECT_NEAR(count_parameters(imagenet64()) / 1e6, 151.6, 0.05);
  for (const ModelConfig& config : {cifar10(), enwik8(), imagenet64()}) EXPECT_NO_THROW(config.check());
}

TEST(ModelConfig, ParametersCountedByHand) {
  ModelConfig config;
  config.context = 12, config.layers = 2, config.heads = 2, config.width = 8, config.qk_width = 4;
  config.feed_forward = 16, config.position_axes = {3, 4};
  const int64_t embedding = 256 * 8 + 8 + 3 * 8 + 4 * 8;
  const int64_t block = 2 * 8 + (4 + 4 + 8) * (8 + 1) + 8 * (8 + 1) + 2 * 8 + 16 * (8 + 1) + 8 * (16 + 1);
  EXPECT_EQ(count_parameters(config), embedding + 2 * block + 2 * 8 + 256 * 8);
  EXPECT_EQ(cost_of(config).parameters, count_parameters(config));
}

TEST(ModelConfig, TheParameterTableNamesEachTensorOnce) {
  ModelConfig config;
  config.layers = 2;
  std::vector<std::string> names;
  for (const ParameterSpec& spec : parameter_table(config)) {
    names.push_back(spec.name);
    EXPECT_EQ(spec.decay, spec.shape.size() > 1) << spec.name;
  }
  EXPECT_EQ(names.size(), 2u + 2 + 2 * 12 + 3);
  EXPECT_EQ(names[0], "embedding.token");
  EXPECT_EQ(names[4], "blocks.0.norm1.gain");
  EXPECT_EQ(names.back(), "output.weight");
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

// The convolution comes last, so that a seed draws all other weights as it does without it.
TEST(ModelConfig, ConvolutionsAreTheLastOfTheTableAndZeroAtFirst) {
  ModelConfig config;
  config.width = 16, config.layers = 2, config.heads = 2, config.context = 64;
  const auto without = parameter_table(config);
  config.convolution = 4;
  const auto table = parameter_table(config);
  ASSERT_EQ(table.size(), without.size() + 2);
  for (size_t i = 0; i < without.size(); ++i) EXPECT_EQ(table[i].name, without[i].name);
  const int64_t more = count_parameters(config);
  config.convolution = 0;
  EXPECT_EQ(more - count_parameters(config), 2 * 4 * 16);
  const ParameterStore store(table, {}, DType::f32);
  initialise(table, 1, store);
  for (size_t layer = 0; layer < 2; ++layer) {
    const size_t i = without.size() + layer;
    EXPECT_EQ(table[i].name, fmt::format("blocks.{}.feed_forward.convolution", layer));
    EXPECT_EQ(table[i].shape, (std::vector<int64_t>{4, 16}));
    EXPECT_FALSE(table[i].decay || table[i].product);
    EXPECT_TRUE(table[i].muon_rows.empty());
    for (int64_t e = 0; e < table[i].count(); ++e) EXPECT_EQ(store[i].as<float>()[e], 0);
  }
}

TEST(ModelConfig, AxesWithoutPositionAxesFollowThePattern) {
  ModelConfig config;
  config.context = 1000;
  config.pattern = "fixed:128,32";
  EXPECT_THAT(config.axes(), ElementsAre(8, 128));
  config.pattern = "prefix:7+stride:50,window:50";
  EXPECT_THAT(config.axes(), ElementsAre(20, 50));
  config.pattern = "dense";
  EXPECT_THAT(config.axes(), ElementsAre(32, 32));
  config.pattern = "window:5000";
  EXPECT_THAT(config.axes(), ElementsAre(1, 1000));
  EXPECT_EQ(message_of(config), "no error");
}

TEST(ModelConfig, ErrorsNameTheFieldAndTheValues) {
  ModelConfig config;
  config.heads = 3;
  EXPECT_THAT(message_of(config), AllOf(HasSubstr("model.heads = 3"), HasSubstr("model.width = 256")));
  config = {};
  config.heads = 4, config.qk_width = 126;
  EXPECT_THAT(message_of(config), AllOf(HasSubstr("model.heads = 4"), HasSubstr("model.qk_width = 126")));
  config = {};
  config.pattern = "fixd:128,32";
  EXPECT_THAT(message_of(config), AllOf(HasSubstr("model.pattern"), HasSubstr("fixd"), HasSubstr("fixed")));
  config.pattern = "fixed:32,128";
  EXPECT_THAT(message_of(config), AllOf(HasSubstr("model.pattern"), HasSubstr("128")));
  config.pattern = "window:4|stride:4|dense";
  EXPECT_THAT(message_of(config), AllOf(HasSubstr("model.pattern"), HasSubstr("4"), HasSubstr("head")));
  config = {};
  config.value_residual = 0.99999999999;
  EXPECT_THAT(message_of(config), AllOf(HasSubstr("model.value_residual"), HasSubstr("below 1")));
  config.value_residual = 0.9;
  EXPECT_EQ(message_of(config), "no error");
  config = {};
  config.convolution = 3;
  EXPECT_THAT(message_of(config), HasSubstr("model.convolution = 3, must be 4"));
  config.convolution = 4;
  EXPECT_EQ(message_of(config), "no error");
  config = {};
  config.position_axes = {10, 100};
  EXPECT_THAT(message_of(config),
              AllOf(HasSubstr("model.position_axes"), HasSubstr("1000"), HasSubstr("1024")));
  config.position_axes = {2, 2048};
  EXPECT_THAT(message_of(config),
              AllOf(HasSubstr("model.position_axes"), HasSubstr("2048"), HasSubstr("1024")));
}

TEST(ModelConfig, FieldsRejectUnknownWordsAndNegativeSizes) {
  const auto read = [](const std::string& text) {
    ModelConfig config;
    FieldList fields;
    config.fields(fields);
    read_toml_text(text, "test", fields);
  };
  EXPECT_NO_THROW(read("layers = 2\npositions = \"released\""));
  EXPECT_THROW(read("positions = \"relased\""), Error);
  EXPECT_THROW(read("init = \"xavier\""), Error);
  EXPECT_THROW(read("layers = -1"), Error);
  EXPECT_THROW(read("position_axes = [4, 0]"), Error);
}

// A width of 0 is for the data to decide; a model cannot have it.
TEST(ModelConfig, AnOpenShapeIsNoModel) {
  EXPECT_NO_THROW(ModelConfig{}.check());
  for (int64_t ModelConfig::*field :
       {&ModelConfig::context, &ModelConfig::layers, &ModelConfig::heads, &ModelConfig::width}) {
    ModelConfig config;
    config.*field = 0;
    EXPECT_THROW(config.check(), Error);
  }
  ModelConfig config;
  config.pattern = "";
  EXPECT_THROW(config.check(), Error);
}

// Mean and standard deviation of the named parameter after initialise().
struct Statistics {
  double mean = 0, deviation = 0;
};

Statistics statistics_of(const std::vector<ParameterSpec>& table, const ParameterStore& store,
                         const std::string& name) {
  for (size_t i = 0; i < table.size(); ++i) {
    if (table[i].name != name) continue;
    const float* w = store[i].as<float>();
    const double count = static_cast<double>(table[i].count());
    double sum = 0, squares = 0;
    for (int64_t e = 0; e < table[i].count(); ++e) sum += w[e];
    const double mean = sum / count;
    for (int64_t e = 0; e < table[i].count(); ++e) squares += (w[e] - mean) * (w[e] - mean);
    return {mean, std::sqrt(squares / count)};
  }
  ADD_FAILURE() << "no parameter " << name;
  return {};
}

class Initialisation : public testing::TestWithParam<std::string> {};

TEST_P(Initialisation, HasTheStatedDeviations) {
  ModelConfig config;
  config.init = GetParam();
  config.context = 16384, config.layers = 8, config.heads = 2, config.width = 128, config.feed_forward = 512;
  config.position_axes = {128, 128};
  const auto table = parameter_table(config);
  const ParameterStore store(table, {}, DType::f32);
  initialise(table, 7, store);

  const auto stated = [&](double fan_in) {
    return GetParam() == "paper" ? 0.125 / std::sqrt(fan_in) : std::sqrt(0.125) / std::sqrt(fan_in);
  };
  const double residual = 1.0 / 4.0;  // 1 / sqrt(2 * 8 layers)
  const std::vector<std::pair<std::string, double>> expected = {
      {"embedding.token", stated(128)},
      {"embedding.position.0", stated(2 * 128)},
      {"embedding.position.1", stated(2 * 128)},
      {"blocks.0.attention.qkv.weight", stated(128)},
      {"blocks.0.attention.projection.weight", stated(128) * residual},
      {"blocks.7.feed_forward.up.weight", stated(128)},
      {"blocks.7.feed_forward.down.weight", stated(512) * residual},
  };
  for (const auto& [name, deviation] : expected) {
    const Statistics s = statistics_of(table, store, name);
    EXPECT_NEAR(s.deviation / deviation, 1, 0.02) << name;
    EXPECT_LT(std::abs(s.mean), 0.03 * deviation) << name;
  }
  for (const std::string name : {"blocks.3.norm1", "blocks.3.norm2", "final_norm"}) {
    EXPECT_EQ(statistics_of(table, store, name + ".gain").mean, 1) << name;
    EXPECT_EQ(statistics_of(table, store, name + ".gain").deviation, 0) << name;
    EXPECT_EQ(statistics_of(table, store, name + ".bias").mean, 0) << name;
  }
  for (const std::string name :
       {"blocks.3.attention.qkv.bias", "blocks.3.feed_forward.down.bias", "output.weight"}) {
    EXPECT_EQ(statistics_of(table, store, name).mean, 0) << name;
    EXPECT_EQ(statistics_of(table, store, name).deviation, 0) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Both, Initialisation, testing::Values("paper", "released"));

TEST(Initialise, SeedsAndTensorsDrawDifferentNumbersAndEqualSeedsEqualOnes) {
  ModelConfig config;
  config.width = 16, config.layers = 2, config.heads = 2, config.context = 64;
  const auto table = parameter_table(config);
  const ParameterStore first(table, {}, DType::f32), again(table, {}, DType::f32),
      other(table, {}, DType::f32);
  initialise(table, 1, first);
  initialise(table, 1, again);
  initialise(table, 2, other);
  const auto values = [&](const ParameterStore& store, size_t i) {
    const float* w = store[i].as<float>();
    return std::vector<float>(w, w + table[i].count());
  };
  for (size_t i = 0; i < table.size(); ++i) {
    EXPECT_EQ(values(first, i), values(again, i)) << table[i].name;
    if (table[i].deviation == 0) continue;
    EXPECT_NE(values(first, i), values(other, i)) << table[i].name;
    for (size_t j = 0; j < i; ++j) {
      if (table[i].shape != table[j].shape) continue;
      EXPECT_NE(values(first, i), values(first, j)) << table[i].name << " and " << table[j].name;
    }
  }
}

}  // namespace
}  // namespace longstride
