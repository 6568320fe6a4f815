// Portable files: integers that agree with the floats, and the same bytes with any threads and instructions.
#include <bit>
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/base/threads.h"
#include "longstride/compress/portable/integer_decoder.h"
#include "longstride/compress/window_coder.h"

#include "tests/support/random_model.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using support::changed_config;
using support::random_bytes;
using support::RandomModel;
using support::small_config;

std::vector<ModelConfig> every_kind_of_model() {
  std::vector<ModelConfig> configs;
  for (const char* pattern : {"dense", "fixed:6,2", "stride:5", "window:7+summary:6,2",
                              "block:5+previous-row:5", "stride:4,window:6"}) {
    configs.push_back(small_config(pattern, 30));
    configs.push_back(changed_config(pattern, 30));
  }
  ModelConfig config = small_config("dense", 24);
  config.positions = "released";
  config.position_axes = {2, 3, 4};
  configs.push_back(config);
  config = small_config("dense", 24);
  config.convolution = 4;
  configs.push_back(config);
  config.convolution = 0, config.value_residual = 0.7;
  configs.push_back(config);
  config.value_residual = 0, config.qk_norm = true;
  configs.push_back(config);
  config.layers = 1, config.value_residual = 0.3;
  configs.push_back(config);
  config.positions = "rotary", config.position_axes = {4, 6};
  configs.push_back(config);
  return configs;
}

std::string in_words(const ModelConfig& config) {
  return config.pattern.text() + " " + config.positions + (config.qk_norm ? " qk_norm" : "") +
         (config.convolves() ? " convolution" : "") + (config.mixes_values() ? " value_residual" : "");
}

// Expected bits of each model's logits, less those of the floats by their own distribution.
TEST(Portable, PredictsWhatFloatsPredict) {
  for (const ModelConfig& config : every_kind_of_model()) {
    const RandomModel model(config);
    const IntegerModel integers(config, model.parameters);
    IntegerDecoder decoder(integers, 2, config.context);
    Decoder floats(config, model.parameters, Device{}, {.streams = 2});
    const std::vector<uint8_t> data = random_bytes(2 * config.context, 5);
    double squares = 0, error = 0;
    for (int64_t position = 0; position < config.context; ++position) {
      const std::vector<uint8_t> previous{data[position], data[position + config.context]};
      const float* got = decoder.step(previous, position).as<float>();
      const float* expected = floats.step(previous, position).as<float>();
      for (int64_t i = 0; i < 2 * kVocabulary; ++i) {
        squares += expected[i] * expected[i];
        error += (got[i] - expected[i]) * (got[i] - expected[i]);
      }
    }
    EXPECT_LT(std::sqrt(error / squares), 0.03) << in_words(config);
  }
}

std::vector<uint8_t> coded(const IntegerModel& model, int64_t streams, const std::vector<uint8_t>& data) {
  IntegerDecoder decoder(model, streams, model.config().context);
  return WindowCoder(decoder).encode(data).bytes;
}

TEST(Portable, EveryLengthComesBack) {
  for (const ModelConfig& config : every_kind_of_model()) {
    const RandomModel model(config);
    const IntegerModel integers(config, model.parameters), again(config, model.parameters);
    for (const int64_t streams : {1, 3})
      for (const int64_t size : {0, 1, 29, 31, 100}) {
        const std::vector<uint8_t> data = random_bytes(size, 3), code = coded(integers, streams, data);
        std::vector<uint8_t> back(data.size(), 0xAA);
        IntegerDecoder later(again, streams, config.context);
        WindowCoder(later).decode(code, back);
        EXPECT_EQ(back, data) << in_words(config) << " " << streams << " " << size;
      }
  }
}

// Wide enough that the threads share it.
ModelConfig wide_config() {
  ModelConfig config = changed_config("window:20+summary:16,2", 64);
  config.width = 384;
  config.qk_width = 128;
  config.heads = 4;
  config.feed_forward = 1100;
  return config;
}

TEST(Portable, IsTheSameWithAnyThreads) {
  const RandomModel model(wide_config());
  const std::vector<uint8_t> data = random_bytes(500, 9);
  std::vector<std::vector<uint8_t>> codes;
  for (const int count : {1, 2, 3, 4}) {
    set_threads(count);
    const IntegerModel integers(model.config, model.parameters);
    codes.push_back(coded(integers, 5, data));
  }
  set_threads(0);
  for (const std::vector<uint8_t>& code : codes) EXPECT_EQ(code, codes[0]);
}

// Windows are independent of those beside them.
TEST(Portable, IsTheSameBesideOtherWindows) {
  const RandomModel model(changed_config("fixed:6,2", 20));
  const IntegerModel integers(model.config, model.parameters);
  const std::vector<uint8_t> bytes = random_bytes(60, 4);
  IntegerDecoder three(integers, 3, 20), one(integers, 1, 20);
  std::vector<float> beside;
  for (int64_t position = 0; position < 20; ++position) {
    const std::vector<uint8_t> previous{bytes[position], bytes[20 + position], bytes[40 + position]};
    const float* logits = three.step(previous, position).as<float>();
    beside.insert(beside.end(), logits + kVocabulary, logits + 2 * kVocabulary);
  }
  for (int64_t position = 0; position < 20; ++position) {
    const float* logits = one.step({&bytes[20 + position], 1}, position).as<float>();
    for (int64_t b = 0; b < kVocabulary; ++b) ASSERT_EQ(logits[b], beside[position * kVocabulary + b]);
  }
}

// Whatever weights there are, nothing overflows, and what was coded comes back.
TEST(Portable, AnyWeightsAreCut) {
  for (const float size : {0.0f, 1e-38f, 1e-3f, 1e4f, 1e20f, 3e38f}) {
    const RandomModel model(changed_config("fixed:6,2", 20));
    for (size_t i = 0; i < model.table.size(); ++i)
      for (int64_t e = 0; e < model.table[i].count(); ++e) {
        float& w = model.weights[i].as<float>()[e];
        w = std::clamp(w * size, -3e38f, 3e38f);
      }
    const IntegerModel integers(model.config, model.parameters);
    const std::vector<uint8_t> data = random_bytes(50, 6), code = coded(integers, 2, data);
    std::vector<uint8_t> back(data.size());
    IntegerDecoder later(integers, 2, 20);
    WindowCoder(later).decode(code, back);
    EXPECT_EQ(back, data) << size;
  }
}

// ---- weights of a stranger ----

constexpr float kLargest = std::numeric_limits<float>::max(),
                kSmallest = std::numeric_limits<float>::denorm_min();

// What a person might write to break sums, by the number of a weight.
const std::vector<std::pair<std::string, float (*)(int64_t)>>& hostile_weights() {
  static const std::vector<std::pair<std::string, float (*)(int64_t)>> all{
      {"the largest", [](int64_t) { return kLargest; }},
      {"the smallest", [](int64_t) { return -kLargest; }},
      {"the largest, mixed signs", [](int64_t i) { return i * 0x9E3779B9 >> 7 & 1 ? kLargest : -kLargest; }},
      {"subnormal", [](int64_t i) { return kSmallest * static_cast<float>(1 + i % 1000); }},
      {"the least of all", [](int64_t i) { return i % 3 == 1 ? -kSmallest : kSmallest; }},
      {"all one", [](int64_t) { return 1.0f; }},
      {"every exponent",
       [](int64_t i) {
         const auto bits = static_cast<uint32_t>(i * 0x9E3779B97F4A7C15 >> 32);
         return std::bit_cast<float>((bits >> 23 & 0xFF) == 0xFF ? bits ^ 0x40000000 : bits);
       }},
      {"one among zeros", [](int64_t i) { return i % 31 == 5 ? 3e38f : 0.0f; }},
  };
  return all;
}

std::vector<ModelConfig> hostile_configs() {
  std::vector<ModelConfig> configs{small_config("fixed:6,2", 20), changed_config("window:7+summary:6,2", 20)};
  configs[1].value_residual =
      0.99999997;  // the largest part that is less than 1 as an f32, and 1 in fixed point
  configs[1].rotary_base = 1e12;
  // One channel a head, and hidden channels that are no multiple of anything.
  ModelConfig& narrow = configs.emplace_back(small_config("dense", 20, 2, 3));
  narrow.width = narrow.qk_width = 3;
  narrow.feed_forward = 1025;
  ModelConfig& one = configs.emplace_back(small_config("dense", 9, 1, 1));
  one.width = one.qk_width = one.feed_forward = 1;
  return configs;
}

void fill(const RandomModel& model, float (*weight)(int64_t)) {
  int64_t number = 0;
  for (size_t i = 0; i < model.table.size(); ++i)
    for (int64_t e = 0; e < model.table[i].count(); ++e) model.weights[i].as<float>()[e] = weight(number++);
}

// The code of some bytes; they come back from it.
std::vector<uint8_t> coded_and_back(const RandomModel& model, int64_t streams, int64_t size) {
  const IntegerModel integers(model.config, model.parameters);
  const std::vector<uint8_t> data = random_bytes(size, 6), code = coded(integers, streams, data);
  std::vector<uint8_t> back(data.size());
  IntegerDecoder later(integers, streams, model.config.context);
  WindowCoder(later).decode(code, back);
  EXPECT_EQ(back, data);
  return code;
}

TEST(Portable, WeightsOfAStrangerNeitherTrapNorDiffer) {
  Checksum checksum;
  for (const ModelConfig& config : hostile_configs()) {
    const RandomModel model(config);
    for (const auto& [name, weight] : hostile_weights()) {
      SCOPED_TRACE(name + ", " + in_words(config));
      fill(model, weight);
      const std::vector<uint8_t> code = coded_and_back(model, 3, 70);
      checksum.update(code.data(), std::ssize(code));
    }
  }
  EXPECT_EQ(checksum.hex(), "1475895ee7b27dedd73483dacdb05808");
}

// As wide as a config may be: the sums are as large as they can become.
TEST(Portable, TheWidestModelsDoNotOverflow) {
  ModelConfig config = changed_config("dense", 2);
  config.heads = 1, config.layers = 1, config.width = 1;
  config.qk_width = 1 << 20;
  config.feed_forward = 1 << 22;
  const RandomModel model(config);
  fill(model, hostile_weights()[0].second);
  const std::vector<uint8_t> code = coded(IntegerModel(config, model.parameters), 1, random_bytes(2, 6));
  EXPECT_EQ(checksum_of(code.data(), std::ssize(code)), "facba69125e24a806079daffd70f90a6");
}

TEST(Portable, RefusesWhatItDoesNotCover) {
  const RandomModel model(small_config("dense", 16));
  model.weights[5].as<float>()[3] = std::nanf("");
  EXPECT_THAT(message_of<Error>([&] { IntegerModel(model.config, model.parameters); }),
              ::testing::HasSubstr("not finite"));
  ModelConfig config = small_config("dense", (int64_t{1} << 26) + 1);
  EXPECT_THAT(message_of<Error>([&] { IntegerModel::check(config); }),
              ::testing::HasSubstr("a portable file needs a model of at most 67108864 positions"));
  config = small_config("dense", 16);
  config.feed_forward = (1 << 22) + 1;
  EXPECT_THAT(message_of<Error>([&] { IntegerModel::check(config); }),
              ::testing::HasSubstr("model.feed_forward = 4194305: a portable file needs 1 to 4194304"));
  config.feed_forward = 0, config.width = 1 << 21, config.qk_width = 2;
  EXPECT_THAT(message_of<Error>([&] { IntegerModel::check(config); }), ::testing::HasSubstr("model.width"));
  config.width = 2, config.value_residual = -1;
  EXPECT_THAT(message_of<Error>([&] { IntegerModel::check(config); }),
              ::testing::HasSubstr("model.value_residual = -1"));
  config.value_residual = 0;
  const RandomModel narrow(config);
  const IntegerModel integers(config, narrow.parameters);
  EXPECT_THAT(message_of<Error>([&] { IntegerDecoder(integers, 65, 16); }),
              ::testing::HasSubstr("at most 64"));
}

// A file with its model in it must not be refused for the number of a machine's threads.
TEST(Portable, NeedsTheSameMemoryWithAnyThreads) {
  const ModelConfig config = wide_config();
  set_threads(1);
  const int64_t one = IntegerDecoder::bytes(config, 3, 64);
  set_threads(64);
  EXPECT_EQ(IntegerDecoder::bytes(config, 3, 64), one);
  set_threads(0);
}

// The decoder is made with some threads and steps with others.
TEST(Portable, ThreadsMayChangeAfterItWasMade) {
  const RandomModel model(wide_config());
  const IntegerModel integers(model.config, model.parameters);
  const std::vector<uint8_t> data = random_bytes(200, 9), expected = coded(integers, 4, data);
  for (const auto& [made, stepped] : {std::pair{1, 4}, {4, 1}, {2, 3}}) {
    set_threads(made);
    IntegerDecoder decoder(integers, 4, model.config.context);
    set_threads(stepped);
    EXPECT_EQ(WindowCoder(decoder).encode(data).bytes, expected) << made << " " << stepped;
  }
  set_threads(0);
}

// The weights of these models by integers alone, since a normal distribution needs a logarithm. Another number
// here means that files of this version of the arithmetic can no longer be read: raise IntegerModel::kVersion.
std::string digest_of(const ModelConfig& config) {
  const RandomModel model(config);
  for (size_t i = 0; i < model.table.size(); ++i) {
    const RandomStream random{11, 97, static_cast<uint32_t>(i)};
    const float scale = model.table[i].shape.size() == 1 ? 0.25f : 0.5f;
    for (int64_t e = 0; e < model.table[i].count(); ++e) {
      const auto whole = static_cast<int32_t>(random.block(e)[0] >> 8) - (1 << 23);
      model.weights[i].as<float>()[e] =
          static_cast<float>(model.table[i].mean) + static_cast<float>(whole) * scale / (1 << 23);
    }
  }
  const IntegerModel integers(config, model.parameters);
  const std::vector<uint8_t> code = coded(integers, 4, random_bytes(2048, 12));
  return checksum_of(code.data(), std::ssize(code));
}

TEST(Portable, FilesOfThisVersionStayReadable) {
  EXPECT_EQ(digest_of(small_config("fixed:16,4", 128)), "c267e723a09e4582b84ec2ab65b915fc");
  EXPECT_EQ(digest_of(changed_config("window:24+summary:16,2", 128)), "13417e50a2eb7b165d742c0227eb23ed");
  ModelConfig config = changed_config("stride:16", 128);
  config.position_axes = {8, 16};
  EXPECT_EQ(digest_of(config), "eb36929c17440ab4cf8e0ce31ea73b72");
  EXPECT_EQ(digest_of(wide_config()), "74ae8fa17e91de20b149472a36523a2e");
}

}  // namespace
}  // namespace longstride
