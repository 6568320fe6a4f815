// Compares the cached decoder with the parallel forward: two ways to the same distributions that share no
// attention code.
#include "longstride/decode/decoder.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include <gtest/gtest.h>

#include "longstride/ops/causal_convolution.h"
#include "longstride/pattern/terms/table.h"
#include "longstride/verify/checks.h"

#include "tests/decode/decoding.h"

namespace longstride {
namespace {

using support::loss_of;
using support::random_bytes;
using support::RandomModel;
using support::row;
using support::small_config;

TEST(Decoder, PassesEveryCheckAgainstTheDoublePrecisionModel) {
  const std::vector<verify::Check> checks = verify::check_decode({}, verify::Effort::thorough);
  EXPECT_GT(checks.size(), 100u);
  for (const verify::Check& check : checks)
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
}

// How a decoder reaches its positions.
struct Way {
  int64_t streams = 2;
  int64_t primed = 0;
  bool exact_scores = false;
  int64_t positions = 0;
};

// The largest difference between the decoder's losses from position `primed` on and `expected` (streams,
// context).
double largest_difference(const RandomModel& model, const Way& way, const std::vector<float>& expected,
                          const QuantizedParameters* quantized = nullptr) {
  const int64_t context = model.config.context, streams = way.streams, primed = way.primed;
  const std::vector<uint8_t> tokens = random_bytes(streams * context, 11);
  Decoder decoder(model.config, model.parameters, Device{},
                  {.streams = streams, .positions = way.positions, .exact_scores = way.exact_scores},
                  quantized);
  if (primed > 0) {
    std::vector<uint8_t> beginnings;
    for (int64_t s = 0; s < streams; ++s)
      beginnings.insert(beginnings.end(), tokens.begin() + s * context,
                        tokens.begin() + s * context + primed);
    decoder.prefill(Tensor(beginnings.data(), DType::u8, {streams, primed}));
  }
  double worst = 0;
  for (int64_t position = primed; position < decoder.positions(); ++position) {
    std::vector<uint8_t> previous(streams);
    for (int64_t s = 0; s < streams && position > 0; ++s) previous[s] = tokens[s * context + position - 1];
    const Tensor logits = decoder.step(previous, position);
    for (int64_t s = 0; s < streams; ++s) {
      const int64_t at = s * context + position;
      const double difference = std::abs(loss_of(row(logits, s), tokens[at]) - expected[at]);
      if (!(difference <= worst)) worst = difference;
    }
  }
  return worst;
}

// The same, compared with the losses of the parallel forward.
double largest_difference(const RandomModel& model, const Way& way) {
  const std::vector<uint8_t> tokens = random_bytes(way.streams * model.config.context, 11);
  return largest_difference(model, way, model.losses(tokens));
}

// Compares a model of bf16 products with the parallel forward of the same weights in f32. Rounding may
// differ, but it may not cost more than twice what it costs the parallel forward.
void expect_rounding_as_in_parallel(RandomModel& model, bool exact_scores = false,
                                    const QuantizedParameters* quantized = nullptr) {
  const std::vector<uint8_t> tokens = random_bytes(2 * model.config.context, 11);
  const std::vector<float> rounded = model.losses(tokens);
  RandomModel exact(model.config);
  for (size_t i = 0; i < exact.table.size(); ++i)
    if (model.products[i])
      std::transform(model.products[i].as<Bf16>(), model.products[i].as<Bf16>() + exact.table[i].count(),
                     exact.weights[i].as<float>(), [](Bf16 value) { return static_cast<float>(value); });
  const std::vector<float> expected = exact.losses(tokens);
  double allowed = 0.01;
  for (size_t i = 0; i < expected.size(); ++i)
    allowed = std::max<double>(allowed, 2 * std::abs(rounded[i] - expected[i]));
  for (const int64_t primed : {0, 20})
    EXPECT_LE(
        largest_difference(model, {.primed = primed, .exact_scores = exact_scores}, expected, quantized),
        allowed)
        << primed << " primed";
}

class EveryPattern : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryPattern, DecodesWhatTheParallelForwardComputes) {
  for (const int64_t context : {1, 2, 7, 45, 64, 83}) {
    const RandomModel model(small_config(GetParam(), context, 3, 4));
    EXPECT_LE(largest_difference(model, {.streams = 3}), 2e-5) << "context " << context;
  }
}

TEST_P(EveryPattern, GoesOnAfterAPrefill) {
  const RandomModel model(small_config(GetParam(), 45, 3, 4));
  for (const int64_t primed : {1, 3, 16, 17, 31, 44})
    EXPECT_LE(largest_difference(model, {.primed = primed}), 2e-5) << primed;
}

// Keys and values are then kept in bf16, or only values.
TEST_P(EveryPattern, RoundsNoMoreThanTheParallelForward) {
  RandomModel model(small_config(GetParam(), 45, 3, 4), 7, DType::bf16);
  for (const bool exact_scores : {false, true}) expect_rounding_as_in_parallel(model, exact_scores);
}

// A cache for fewer positions than the context.
TEST_P(EveryPattern, DecodesTheBeginningsOfLongerContexts) {
  const RandomModel model(small_config(GetParam(), 64, 3, 4));
  for (const int64_t positions : {1, 13, 30, 63})
    for (const int64_t primed : {int64_t{0}, positions / 2, positions - 1})
      EXPECT_LE(largest_difference(model, {.primed = primed, .positions = positions}), 2e-5)
          << positions << " positions, " << primed << " primed";
}

// Mixed values are kept. The first block's part is that of the same position.
TEST_P(EveryPattern, AgreesForMixedValues) {
  for (const bool changed : {false, true}) {
    ModelConfig config = small_config(GetParam(), 45, 4, 4);
    config.value_residual = 0.4;
    if (changed) config.positions = "rotary", config.qk_norm = true;
    const RandomModel model(config);
    for (const int64_t primed : {0, 17, 31})
      for (const int64_t positions : {0, 37})
        EXPECT_LE(largest_difference(model, {.primed = primed, .positions = positions}), 2e-5)
            << changed << ", " << primed << " primed, " << positions << " positions";
    RandomModel rounded(config, 7, DType::bf16);
    expect_rounding_as_in_parallel(rounded);
  }
}

// The last rows for the convolution are kept, also after a prefill.
TEST_P(EveryPattern, AgreesForConvolutions) {
  for (const bool changed : {false, true}) {
    ModelConfig config = small_config(GetParam(), 45, 3, 4);
    config.convolution = 4;
    if (changed) config.positions = "rotary", config.qk_norm = true, config.value_residual = 0.4;
    const RandomModel model(config);
    for (const int64_t primed : {0, 1, 3, 17, 18, 31})
      for (const int64_t positions : {0, 37})
        EXPECT_LE(largest_difference(model, {.primed = primed, .positions = positions}), 2e-5)
            << changed << ", " << primed << " primed, " << positions << " positions";
    RandomModel rounded(config, 7, DType::bf16);
    expect_rounding_as_in_parallel(rounded);
  }
}

// Keys are kept turned and normalised, as the parallel forward gives them to the attention.
TEST_P(EveryPattern, AgreesForChangedQueriesAndKeys) {
  for (const bool rotary : {true, false})
    for (const bool qk_norm : {true, false}) {
      if (!rotary && !qk_norm) continue;
      ModelConfig config = small_config(GetParam(), 45, 3, 4);
      if (rotary) config.positions = "rotary";
      config.qk_norm = qk_norm;
      const RandomModel model(config);
      for (const int64_t primed : {0, 3, 17, 31})
        for (const int64_t positions : {0, 37})
          EXPECT_LE(largest_difference(model, {.primed = primed, .positions = positions}), 2e-5)
              << rotary << qk_norm << ", " << primed << " primed, " << positions << " positions";
      RandomModel rounded(config, 7, DType::bf16);
      for (const bool exact_scores : {false, true}) expect_rounding_as_in_parallel(rounded, exact_scores);
    }
}

std::vector<std::string> patterns_to_decode() {
  const std::vector<const char*> examples = terms::examples();
  std::vector<std::string> patterns(examples.begin(), examples.end());
  patterns.insert(
      patterns.end(),
      {"summary:100,2", "strided:8", "fixed:8,2", "spread-fixed:8,2", "window:5+prefix:3+stride:16",
       "block:16+previous-row:16", "window:3+previous-row:9+summary:6,2+stride:5",
       "dilated:3,5+stride:8+window:3", "summary:7,2+summary:7,2,1+prefix:9", "window:6|stride:6",
       "window:4|stride:4", "spread-fixed:8,1|window:3", "summary:100,2|dilated:4,3", "stride:8,window:8*2",
       "fixed:16,4,dense", "summary:90,1,window:3"});
  return patterns;
}

INSTANTIATE_TEST_SUITE_P(Decoder, EveryPattern, ::testing::ValuesIn(patterns_to_decode()),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

TEST(Decoder, AgreesForRotaryPositionsOfGivenAxes) {
  ModelConfig config = small_config("strided:9", 45);
  config.positions = "rotary";
  config.position_axes = {5, 3, 3};
  config.qk_norm = true;
  for (const int64_t primed : {0, 20})
    EXPECT_LE(largest_difference(RandomModel(config), {.primed = primed}), 2e-5) << primed;
}

TEST(Decoder, PlansWhatRotaryPositionsTake) {
  ModelConfig plain = small_config("strided:9", 64), rotary = plain;
  rotary.positions = "rotary";
  const DecoderOptions options{.streams = 2, .positions = 32};
  const int64_t table = 32 * rotary.qk_head() * static_cast<int64_t>(sizeof(float));
  const int64_t more = Decoder::bytes(rotary, Device{}, DType::f32, options) -
                       Decoder::bytes(plain, Device{}, DType::f32, options);
  EXPECT_GE(more, table);
  EXPECT_LE(more, table + 256);
}

TEST(Decoder, PlansWhatConvolutionsTake) {
  ModelConfig plain = small_config("strided:9", 64), convolved = plain;
  convolved.convolution = 4;
  const DecoderOptions options{.streams = 2};
  const int64_t kept = convolved.layers * 2 * 4 * convolved.width * static_cast<int64_t>(sizeof(float));
  const int64_t more = Decoder::bytes(convolved, Device{}, DType::f32, options) -
                       Decoder::bytes(plain, Device{}, DType::f32, options);
  EXPECT_GE(more, kept);
  EXPECT_LE(more, kept + convolved.layers * 64);
}

TEST(Decoder, PlansWhatMixedValuesTake) {
  ModelConfig plain = small_config("strided:9", 64), mixed = plain;
  mixed.value_residual = 0.4;
  const DecoderOptions options{.streams = 2};
  const int64_t values = 2 * mixed.width * static_cast<int64_t>(sizeof(float));
  const int64_t more = Decoder::bytes(mixed, Device{}, DType::f32, options) -
                       Decoder::bytes(plain, Device{}, DType::f32, options);
  EXPECT_GE(more, values);
  EXPECT_LE(more, values + 256);
}

TEST(Decoder, AgreesForReleasedPositionsAndGivenAxes) {
  ModelConfig config = small_config("strided:9", 45);
  config.positions = "released";
  config.position_axes = {5, 3, 3};
  EXPECT_LE(largest_difference(RandomModel(config), {}), 2e-5);
  EXPECT_LE(largest_difference(RandomModel(config), {.primed = 20}), 2e-5);
}

// The parallel forward also stores branches in bf16, and the decoder does not. So they may differ by as much
// as both may differ from the model in f32.
TEST(Decoder, AgreesForProductsInBf16) {
  const ModelConfig config = small_config("fixed:8,2", 45);
  const RandomModel exact(config, 7), model(config, 7, DType::bf16);
  const std::vector<uint8_t> tokens = random_bytes(2 * config.context, 11);
  const std::vector<float> truth = exact.losses(tokens), rounded = model.losses(tokens);
  double rounding = 0;
  for (size_t i = 0; i < truth.size(); ++i)
    rounding = std::max<double>(rounding, std::abs(rounded[i] - truth[i]));
  EXPECT_LE(rounding, 0.1);
  EXPECT_LE(largest_difference(model, {}), 2 * rounding);
  EXPECT_LE(largest_difference(model, {.primed = 20}), 2 * rounding);
}

TEST(Decoder, AgreesForWeightsInEightBits) {
  RandomModel model(small_config("fixed:8,2", 45));
  const std::vector<uint8_t> tokens = random_bytes(2 * 45, 11);
  const std::vector<float> before = model.losses(tokens);
  const QuantizedParameters quantized = model.quantize_products();
  const std::vector<float> after = model.losses(tokens);
  EXPECT_NE(after, before);
  for (const int64_t primed : {0, 20})
    EXPECT_LE(largest_difference(model, {.primed = primed}, after, &quantized), 2e-5) << primed;

  RandomModel in_bf16(model.config, 7, DType::bf16);
  const QuantizedParameters again = in_bf16.quantize_products();
  expect_rounding_as_in_parallel(in_bf16, false, &again);
}

TEST(Decoder, NoiseStandsInForPositions) {
  for (const DType product : {DType::f32, DType::bf16}) {
    const RandomModel model(small_config("strided:8", 40), 7, product);
    Decoder decoder(model.config, model.parameters, Device{}, {.streams = 2});
    decoder.fill_with_noise(39);
    EXPECT_EQ(decoder.filled(0), 39);
    EXPECT_EQ(decoder.filled(1), 39);
    const Tensor logits = decoder.step(std::vector<uint8_t>(2), 39);
    for (int64_t i = 0; i < logits.count(); ++i) ASSERT_TRUE(std::isfinite(logits.as<float>()[i]));
    EXPECT_THROW(decoder.fill_with_noise(41), Error);
  }
}

// ---- memory ----

TEST(Decoder, PlansItsMemory) {
  const ModelConfig config = small_config("dense", 1000, 5);
  const auto bytes = [&](DType product, int64_t streams) {
    return Decoder::bytes(config, Device{}, product, {.streams = streams});
  };
  const int64_t cache = 5 * 1000 * (config.qk() + config.width) * 4;
  EXPECT_GE(bytes(DType::f32, 1), cache);
  EXPECT_LE(bytes(DType::f32, 1), cache + 20000);
  EXPECT_GE(bytes(DType::f32, 4), 4 * cache);
  EXPECT_LE(bytes(DType::f32, 4), 4 * (cache + 20000));
  EXPECT_GE(bytes(DType::bf16, 1), cache / 2);
  EXPECT_LE(bytes(DType::bf16, 1), cache / 2 + 20000);
  EXPECT_EQ(Decoder::prefill_bytes(config, Device{}, DType::f32, Decoder::kParallelFrom), 0);
  EXPECT_GT(Decoder::prefill_bytes(config, Device{}, DType::f32, 1000), 1000 * config.width * 4);
}

// Rows times widths, as the arena allocates them. A plan that counted less would have thrown above.
TEST(KeyCaches, KeepWhatThePatternCanStillRead) {
  const struct {
    const char* pattern;
    int64_t rows;  // of four heads, in the first layer
  } cases[] = {{"dense", 4000},       {"window:50", 200},        {"block:50", 200},
               {"fixed:50,3", 440},   {"summary:50,3", 240},     {"prefix:9+window:6", 60},
               {"stride:50", 4000},   {"window:50|dense", 2100}, {"previous-row:50", 400},
               {"summary:5000,2", 0}, {"window:50,dense", 200},  {"dilated:4,10", 124}};
  for (const auto& [pattern, rows] : cases) {
    const ModelConfig config = small_config(pattern, 1000, 3, 4);
    for (const bool exact_scores : {false, true}) {
      const CachePlan plan = plan_caches(config, 1000, DType::bf16, exact_scores);
      EXPECT_EQ(plan.layer(0).rows, rows) << pattern;
      const int64_t a_row = 4 * (exact_scores ? 4 : 2) + 6 * 2;
      EXPECT_EQ(cache_bytes(plan, config, 0), rows * a_row) << pattern;
      EXPECT_EQ(dense_cache_bytes(plan, config), 4000 * a_row);
      ModelConfig convolved = config;
      convolved.convolution = kConvolutionTaps;
      EXPECT_EQ(cache_bytes(plan, convolved, 0), rows * a_row + 4 * config.width * 4);
      EXPECT_GE(KeyCaches::bytes(convolved, plan, 2), 2 * config.layers * 4 * config.width * 4);
      int64_t all = 0;
      for (int64_t layer = 0; layer < config.layers; ++layer) all += cache_bytes(plan, config, layer);
      EXPECT_GE(KeyCaches::bytes(config, plan, 2), 2 * all) << pattern;
      EXPECT_LE(KeyCaches::bytes(config, plan, 2), 2 * all + 64 * 2 * config.layers) << pattern;
      const KeyCaches caches(config, plan, Device{}, 2);
      int64_t held = 0;
      for (int64_t layer = 0; layer < caches.layers(); ++layer)
        held += caches.layer(layer).keys.bytes() + caches.layer(layer).values.bytes();
      EXPECT_EQ(held, 2 * all) << pattern;
    }
  }
}

TEST(KeyCaches, LayersAndHeadsShareStores) {
  EXPECT_EQ(plan_caches(small_config("fixed:8,2", 40, 6, 4), 40, DType::f32, false).stores.size(), 1u);
  EXPECT_EQ(plan_caches(small_config("window:4|stride:4", 40, 6, 4), 40, DType::f32, false).stores.size(),
            2u);
  const CachePlan plan = plan_caches(small_config("stride:8,window:8*2", 40, 7, 4), 40, DType::f32, false);
  EXPECT_EQ(plan.stores.size(), 2u);
  EXPECT_EQ(plan.layers.size(), 3u);
  EXPECT_EQ(plan.layer(3).rows, 4 * 40);
  EXPECT_EQ(plan.layer(5).rows, 4 * 8);
}

}  // namespace
}  // namespace longstride
