// Portable files: integers that agree with the floats, and the same bytes with any threads and instructions.
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/base/threads.h"
#include "longstride/compress/portable/integer_decoder.h"
#include "longstride/compress/portable/whole_product.h"
#include "longstride/compress/window_coder.h"
#include "longstride/model/rotary.h"
#include "longstride/ops/reference/activation.h"

#include "tests/support/random_model.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using portable::Fixed;
using portable::fixed_of;
using portable::kFraction;
using testing::changed_config;
using testing::random_bytes;
using testing::RandomModel;
using testing::small_config;

double real(Fixed value, int bits = kFraction) { return std::ldexp(static_cast<double>(value), -bits); }

// ---- fixed point ----

TEST(FixedPoint, IsTheNearestNumber) {
  EXPECT_EQ(fixed_of(1.0), Fixed{1} << kFraction);
  EXPECT_EQ(fixed_of(-0.75), -(Fixed{3} << (kFraction - 2)));
  EXPECT_EQ(fixed_of(std::ldexp(1.5, -kFraction)), 2);
  EXPECT_EQ(fixed_of(std::ldexp(-1.5, -kFraction)), -2);
  EXPECT_EQ(fixed_of(std::ldexp(1.0, -kFraction - 2)), 0);
  EXPECT_EQ(fixed_of(0.0), 0);
  EXPECT_EQ(fixed_of(-0.0), 0);
  EXPECT_EQ(fixed_of(1e-320), 0);
  EXPECT_EQ(fixed_of(1e30), portable::kMost);
  EXPECT_EQ(fixed_of(-1e300), -portable::kMost);
  EXPECT_EQ(fixed_of(1.0, 9, int64_t{1} << 62), 512);
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL})
    EXPECT_THAT(message_of<Error>([&] { fixed_of(bad); }), ::testing::HasSubstr("not finite"));
}

TEST(FixedPoint, ShiftsRound) {
  EXPECT_EQ(portable::shifted(5, 1), 3);
  EXPECT_EQ(portable::shifted(-5, 1), -2);
  EXPECT_EQ(portable::shifted(7, 0), 7);
  EXPECT_EQ(portable::shifted(7, 63), 0);
  EXPECT_EQ(portable::shifted(-7, 200), 0);
  EXPECT_EQ(portable::shifted(-7, -2), -28);
  EXPECT_EQ(portable::shifted(3, -61), int64_t{1} << 62);
  EXPECT_EQ(portable::shifted(-3, -300), -(int64_t{1} << 62));
  EXPECT_EQ(portable::shifted(int64_t{1} << 62, 62), 1);
}

TEST(FixedPoint, RowsShareAnExponent) {
  const std::vector<Fixed> row{0, 1, -3, 40000, -70000};
  std::vector<int16_t> whole(row.size());
  const int exponent = portable::to_whole(row, 15, whole.data());
  EXPECT_EQ(exponent, 2);
  EXPECT_THAT(whole, ::testing::ElementsAre(0, 0, -1, 10000, -17500));
  const std::vector<Fixed> most{65535, -65536};
  EXPECT_EQ(portable::to_whole(most, 15, whole.data()), 2);
  EXPECT_EQ(whole[0], 16384);
  const std::vector<Fixed> rounds_up{32767 * 2 + 1};
  EXPECT_EQ(portable::to_whole(rounds_up, 15, whole.data()), 1);
  EXPECT_EQ(whole[0], 32767);
}

TEST(FixedPoint, NormalisesAsTheDefinition) {
  const RandomStream random{1, 2, 3};
  for (const int64_t width : {1, 2, 24, 129, 4096})
    for (const double size : {0.0, 1e-4, 0.02, 1.0, 300.0, 60000.0})
      for (const bool centred : {false, true}) {
        std::vector<Fixed> x(static_cast<size_t>(width)), y(x.size());
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < width; ++i) x[i] = fixed_of(size * (random.normal(i) + 0.5));
        for (const Fixed value : x) mean += centred ? real(value) / static_cast<double>(width) : 0;
        for (const Fixed value : x) squares += (real(value) - mean) * (real(value) - mean);
        const double root = std::sqrt(squares / static_cast<double>(width) + 1e-5);
        portable::normalise(x, centred, portable::kEpsilon5, y.data());
        for (int64_t i = 0; i < width; ++i)
          ASSERT_NEAR(real(y[i]), (real(x[i]) - mean) / root, 1e-5 * std::sqrt(static_cast<double>(width)))
              << width << " " << size << " " << centred << " " << i;
      }
}

TEST(FixedPoint, ActivationIsThatOfTheReference) {
  for (double x = -40; x < 40; x += 0.013) {
    double expected = 0;
    reference::activation_forward(&x, 1, &expected);
    EXPECT_NEAR(real(portable::Activation::get()(fixed_of(x))), expected, 2e-6 * std::max(1.0, std::abs(x)))
        << x;
  }
  EXPECT_EQ(portable::Activation::get()(portable::kMost), portable::kMost);
  EXPECT_NEAR(real(portable::Activation::get()(-portable::kMost)), 0, 0.02);
}

void expect_angles(ModelConfig config, int64_t count) {
  config.positions = "rotary";
  const RotaryAngles angles(config);
  const std::vector<portable::Turn> rotation = integer_rotation(config, count);
  const int64_t half = config.qk_head() / 2;
  for (int64_t i = 0; i < count; i += 1 + i / 7)
    for (int64_t pair = 0; pair < half; ++pair) {
      const portable::Turn turn = rotation[i * half + pair];
      EXPECT_NEAR(real(turn.cosine, portable::kTurnBits), std::cos(angles(i, pair)), 2e-6)
          << i << " " << pair;
      EXPECT_NEAR(real(turn.sine, portable::kTurnBits), std::sin(angles(i, pair)), 2e-6) << i << " " << pair;
    }
}

TEST(FixedPoint, AnglesAreThoseOfTheModel) {
  expect_angles(small_config("dense", 1'000'000), 1'000'000);
  ModelConfig config = small_config("dense", 3072);
  config.qk_width = 80;
  expect_angles(config, 3072);
  config.position_axes = {32, 32, 3};
  expect_angles(config, 3072);
  config.rotary_base = 123456.789;
  expect_angles(config, 3072);
  config.rotary_base = 1;
  expect_angles(config, 3072);
  config.rotary_base = 0;
  config.position_axes.assign(7, 3072);  // whose product is beyond 64 bits
  expect_angles(config, 3072);
}

// ---- whole models ----

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

TEST(FixedPoint, TheWidestRowsAreNormalised) {
  std::vector<Fixed> x(size_t{1} << 20);
  for (const bool centred : {false, true}) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? portable::kMost : -portable::kMost;
    portable::normalise(x, centred, portable::kEpsilon5, x.data());
    EXPECT_NEAR(real(x[0]), 1, 1e-5);
    EXPECT_EQ(x[1], -x[0]);
  }
  std::fill(x.begin(), x.end(), portable::kMost);
  portable::normalise(x, true, portable::kEpsilon5, x.data());
  EXPECT_EQ(x[7], 0);
  std::fill(x.begin(), x.end(), -portable::kMost);
  portable::normalise(x, false, portable::kEpsilon5, x.data());
  EXPECT_NEAR(real(x[7]), -1, 1e-5);
}

TEST(FixedPoint, TheLongestSumsOfProductsFit) {
  constexpr int64_t kColumns = int64_t{1} << 22;
  const std::vector<int8_t> w(kColumns, -127);
  const std::vector<int16_t> x(kColumns, 32767);
  portable::whole_product(w.data(), 1, kColumns, x.data(), 1,
                          [&](int64_t, int64_t, int64_t sum) { EXPECT_EQ(sum, -kColumns * 127 * 32767); });
  const std::vector<int16_t> query(kColumns, -4095), key(kColumns, 4095);
  const int32_t row = 0;
  int64_t sum = 1;
  whole_scores(query.data(), key.data(), &row, 1, kColumns, &sum);
  EXPECT_EQ(sum, -kColumns * 4095 * 4095);
}

TEST(FixedPoint, VectorsSumAsPlainLoops) {
  const RandomStream random{5, 6, 7};
  const auto whole = [&](int64_t i, int32_t most) {
    return static_cast<int32_t>(random.block(i)[0] % static_cast<uint32_t>(2 * most + 1)) - most;
  };
  for (const int64_t width : {1, 7, 8, 31, 32, 33, 64, 100, 600, 17000})
    for (const int64_t count : {1, 2, 5, 64, 65, 200}) {
      if (width * count > 1'000'000) continue;
      std::vector<int16_t> x(static_cast<size_t>(width * count)), small(x.size());
      std::vector<int8_t> w(static_cast<size_t>(3 * width));
      std::vector<int32_t> rows, factors;
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<int16_t>(i % 3 == 0 ? 32767 : whole(std::ssize(x) + i, 32767)),
        small[i] = static_cast<int16_t>(i % 3 == 1 ? -4095 : whole(i, 4095));
      for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i % 5 == 0 ? 127 : whole(i, 127));
      for (int64_t j = 0; j < count; ++j)
        rows.push_back(static_cast<int32_t>((j * 7 + 3) % count)),
            factors.push_back(j % 4 == 0 ? 1 << 20 : whole(j, 1 << 19) + (1 << 19));
      std::vector<int64_t> sums(static_cast<size_t>(std::max(3 * count, width)), -1);
      const int64_t few = std::min<int64_t>(count, portable::kMostWholeRows);
      whole_products(w.data(), 3, width, x.data(), few, sums.data());
      for (int64_t n = 0; n < 3; ++n)
        for (int64_t m = 0; m < few; ++m) {
          int64_t sum = 0;
          for (int64_t k = 0; k < width; ++k) sum += int64_t{w[n * width + k]} * x[m * width + k];
          ASSERT_EQ(sums[n * few + m], sum) << width << " " << count;
        }
      whole_scores(small.data(), small.data(), rows.data(), count, width, sums.data());
      for (int64_t j = 0; j < count; ++j) {
        int64_t sum = 0;
        for (int64_t k = 0; k < width; ++k) sum += int64_t{small[k]} * small[rows[j] * width + k];
        ASSERT_EQ(sums[j], sum) << width << " " << count;
      }
      whole_mixture(factors.data(), x.data(), rows.data(), count, width, sums.data());
      for (int64_t k = 0; k < width; ++k) {
        int64_t sum = 0;
        for (int64_t j = 0; j < count; ++j) sum += int64_t{factors[j]} * x[rows[j] * width + k];
        ASSERT_EQ(sums[k], sum) << width << " " << count;
      }
    }
}

// ---- what it refuses ----

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
