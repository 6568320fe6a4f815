// The cached decoder against the parallel forward: two ways to the same distributions that share no attention
// code.
#include "longstride/sample/decoder.h"

#include <cmath>
#include <deque>

#include <gtest/gtest.h>

#include "tests/sample/random_model.h"

namespace longstride {
namespace {

using testing::random_bytes;
using testing::RandomModel;
using testing::small_config;

// -log softmax(logits)[token] in double.
double loss_of(std::span<const float> logits, uint8_t token) {
  double most = logits[0], sum = 0;
  for (const float logit : logits) most = std::max<double>(most, logit);
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum) - logits[token];
}

std::span<const float> row(const Tensor& logits, int64_t stream) {
  return {logits.as<float>() + stream * kVocabulary, static_cast<size_t>(kVocabulary)};
}

std::vector<uint8_t> column(const std::vector<uint8_t>& tokens, int64_t streams, int64_t context,
                            int64_t position) {
  std::vector<uint8_t> result(streams);
  for (int64_t s = 0; s < streams; ++s) result[s] = tokens[s * context + position];
  return result;
}

// The largest difference between the decoder's losses from position `primed` on and `expected` (streams,
// context).
double largest_difference(const RandomModel& model, int64_t streams, int64_t primed,
                          const std::vector<float>& expected,
                          const QuantizedParameters* quantized = nullptr) {
  const int64_t context = model.config.context;
  const std::vector<uint8_t> tokens = random_bytes(streams * context, 11);
  Decoder decoder(model.config, model.parameters, Device{}, streams, quantized);
  if (primed > 0) {
    std::vector<uint8_t> beginnings;
    for (int64_t s = 0; s < streams; ++s)
      beginnings.insert(beginnings.end(), tokens.begin() + s * context,
                        tokens.begin() + s * context + primed);
    decoder.prefill(Tensor(beginnings.data(), DType::u8, {streams, primed}));
  }
  double worst = 0;
  for (int64_t position = primed; position < context; ++position) {
    const auto previous =
        position > 0 ? column(tokens, streams, context, position - 1) : std::vector<uint8_t>(streams);
    const Tensor logits = decoder.step(previous, position);
    for (int64_t s = 0; s < streams; ++s) {
      const int64_t at = s * context + position;
      const double difference = std::abs(loss_of(row(logits, s), tokens[at]) - expected[at]);
      if (!(difference <= worst)) worst = difference;
    }
  }
  return worst;
}

// The same for the losses of the parallel forward.
double largest_difference(const RandomModel& model, int64_t streams, int64_t primed) {
  const std::vector<uint8_t> tokens = random_bytes(streams * model.config.context, 11);
  return largest_difference(model, streams, primed, model.losses(tokens));
}

// A model of bf16 products beside the parallel forward of the same weights in f32 products: rounding may
// differ, but it may not cost more than twice what it costs the parallel forward.
void expect_rounding_as_in_parallel(RandomModel& model, const QuantizedParameters* quantized = nullptr) {
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
    EXPECT_LE(largest_difference(model, 2, primed, expected, quantized), allowed) << primed << " primed";
}

class EveryPattern : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryPattern, DecodesWhatTheParallelForwardComputes) {
  for (const int64_t context : {1, 2, 45, 64}) {
    const RandomModel model(small_config(GetParam(), context, 3, 4));
    EXPECT_LE(largest_difference(model, 3, 0), 2e-5) << "context " << context;
  }
}

TEST_P(EveryPattern, GoesOnAfterAParallelPrefill) {
  const RandomModel model(small_config(GetParam(), 45, 3, 4));
  for (const int64_t primed : {3, 17, 31, 44})
    EXPECT_LE(largest_difference(model, 2, primed), 2e-5) << primed;
}

// Keys and values are kept in bf16 then.
TEST_P(EveryPattern, RoundsNoMoreThanTheParallelForward) {
  RandomModel model(small_config(GetParam(), 45, 3, 4), 7, DType::bf16);
  expect_rounding_as_in_parallel(model);
}

INSTANTIATE_TEST_SUITE_P(Decoder, EveryPattern,
                         ::testing::Values("dense", "window:7", "block:8", "stride:6", "summary:8,3",
                                           "summary:8,2,1", "prefix:5", "previous-row:9", "dilated:4,3",
                                           "strided:8", "fixed:8,2", "spread-fixed:8,2", "spread-summary:8,2",
                                           "window:5+prefix:3+stride:16", "block:16+previous-row:16",
                                           "window:100", "window:6|stride:6", "spread-fixed:8,1|window:3",
                                           "stride:8,window:8*2", "fixed:16,4,dense"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

TEST(Decoder, AgreesForReleasedPositionsAndGivenAxes) {
  ModelConfig config = small_config("strided:9", 45);
  config.positions = "released";
  config.position_axes = {5, 3, 3};
  EXPECT_LE(largest_difference(RandomModel(config), 2, 0), 2e-5);
  EXPECT_LE(largest_difference(RandomModel(config), 2, 20), 2e-5);
}

// The parallel forward also stores what lies on branches in bf16, the decoder does not: they may differ by as
// much as both may from the model in f32.
TEST(Decoder, AgreesForProductsInBf16) {
  const ModelConfig config = small_config("fixed:8,2", 45);
  const RandomModel exact(config, 7), model(config, 7, DType::bf16);
  const std::vector<uint8_t> tokens = random_bytes(2 * config.context, 11);
  const std::vector<float> truth = exact.losses(tokens), rounded = model.losses(tokens);
  double rounding = 0;
  for (size_t i = 0; i < truth.size(); ++i)
    rounding = std::max<double>(rounding, std::abs(rounded[i] - truth[i]));
  EXPECT_LE(rounding, 0.1);
  EXPECT_LE(largest_difference(model, 2, 0), 2 * rounding);
  EXPECT_LE(largest_difference(model, 2, 20), 2 * rounding);
}

TEST(Decoder, AgreesForWeightsInEightBits) {
  RandomModel model(small_config("fixed:8,2", 45));
  const std::vector<uint8_t> tokens = random_bytes(2 * 45, 11);
  const std::vector<float> before = model.losses(tokens);
  const QuantizedParameters quantized = model.quantize_products();
  const std::vector<float> after = model.losses(tokens);
  EXPECT_NE(after, before);
  for (const int64_t primed : {0, 20})
    EXPECT_LE(largest_difference(model, 2, primed, after, &quantized), 2e-5) << primed;

  RandomModel in_bf16(model.config, 7, DType::bf16);
  const QuantizedParameters again = in_bf16.quantize_products();
  expect_rounding_as_in_parallel(in_bf16, &again);
}

TEST(Decoder, NoiseStandsInForPositions) {
  for (const DType product : {DType::f32, DType::bf16}) {
    const RandomModel model(small_config("strided:8", 40), 7, product);
    Decoder decoder(model.config, model.parameters, Device{}, 2);
    decoder.fill_with_noise(40);
    EXPECT_EQ(decoder.filled(), 40);
    const Tensor logits = decoder.step(std::vector<uint8_t>(2), 39);
    for (int64_t i = 0; i < logits.count(); ++i) ASSERT_TRUE(std::isfinite(logits.as<float>()[i]));
    EXPECT_THROW(decoder.fill_with_noise(41), Error);
  }
}

TEST(Decoder, StreamsDoNotSeeEachOther) {
  const RandomModel model(small_config("strided:8", 40));
  const int64_t context = 40, streams = 5;
  const std::vector<uint8_t> tokens = random_bytes(streams * context, 5);
  Decoder together(model.config, model.parameters, Device{}, streams);
  std::deque<Decoder> alone;
  for (int64_t s = 0; s < streams; ++s) alone.emplace_back(model.config, model.parameters, Device{}, 1);
  for (int64_t position = 0; position < context; ++position) {
    const auto previous =
        position > 0 ? column(tokens, streams, context, position - 1) : std::vector<uint8_t>(streams);
    const Tensor all = together.step(previous, position);
    for (int64_t s = 0; s < streams; ++s) {
      const Tensor one = alone[s].step({&previous[s], 1}, position);
      for (int64_t byte = 0; byte < kVocabulary; ++byte)
        ASSERT_NEAR(row(all, s)[byte], row(one, 0)[byte], 1e-4) << "stream " << s << " at " << position;
    }
  }
}

TEST(Decoder, EqualBeginningsArePrefilledOnceAndDifferentOnesApart) {
  const RandomModel model(small_config("strided:8", 40));
  const int64_t length = 30;
  std::vector<uint8_t> rows = random_bytes(length, 1), other = random_bytes(length, 2);
  std::vector<uint8_t> tokens = rows;
  tokens.insert(tokens.end(), other.begin(), other.end());
  tokens.insert(tokens.end(), rows.begin(), rows.end());
  Decoder decoder(model.config, model.parameters, Device{}, 3);
  decoder.prefill(Tensor(tokens.data(), DType::u8, {3, length}));
  const Tensor logits = decoder.step(std::vector<uint8_t>{rows[29], other[29], rows[29]}, length);
  double apart = 0;
  for (int64_t byte = 0; byte < kVocabulary; ++byte) {
    EXPECT_NEAR(row(logits, 0)[byte], row(logits, 2)[byte], 1e-5);
    apart = std::max<double>(apart, std::abs(row(logits, 0)[byte] - row(logits, 1)[byte]));
  }
  EXPECT_GT(apart, 0.1);
}

TEST(Decoder, GoingBackForgetsWhatCameAfter) {
  const RandomModel model(small_config("dense", 20));
  const std::vector<uint8_t> tokens = random_bytes(20, 3);
  Decoder decoder(model.config, model.parameters, Device{}, 1);
  const auto run = [&] {
    std::vector<float> last;
    for (int64_t position = 0; position < 20; ++position) {
      const Tensor logits = decoder.step({&tokens[position > 0 ? position - 1 : 0], 1}, position);
      last.assign(logits.as<float>(), logits.as<float>() + kVocabulary);
    }
    return last;
  };
  const auto first = run();
  EXPECT_EQ(first, run());
}

TEST(Decoder, RefusesPositionsThatCannotBe) {
  const RandomModel model(small_config("dense", 20));
  Decoder decoder(model.config, model.parameters, Device{}, 2);
  const std::vector<uint8_t> previous(2);
  EXPECT_THROW(decoder.step(previous, 1), Error);
  EXPECT_THROW(decoder.step(previous, -1), Error);
  decoder.step(previous, 0);
  EXPECT_THROW(decoder.step(std::vector<uint8_t>(3), 1), Error);
  EXPECT_THROW(decoder.step(previous, 20), Error);
  std::vector<uint8_t> tokens(2 * 21);
  EXPECT_THROW(decoder.prefill(Tensor(tokens.data(), DType::u8, {2, 21})), Error);
  EXPECT_THROW(decoder.prefill(Tensor(tokens.data(), DType::u8, {3, 7})), Error);
  EXPECT_THROW(Decoder(model.config, model.parameters, Device{}, 0), Error);
}

TEST(Decoder, PlansItsMemory) {
  const ModelConfig config = small_config("dense", 1000, 5);
  const int64_t cache = 5 * 1000 * (config.qk() + config.width) * 4;
  const int64_t one = Decoder::bytes(config, Device{}, DType::f32, 1),
                four = Decoder::bytes(config, Device{}, DType::f32, 4);
  EXPECT_GE(one, cache);
  EXPECT_LE(one, cache + 20000);
  EXPECT_GE(four, 4 * cache);
  EXPECT_LE(four, 4 * (cache + 20000));
  const int64_t half = Decoder::bytes(config, Device{}, DType::bf16, 1);
  EXPECT_GE(half, cache / 2);
  EXPECT_LE(half, cache / 2 + 40000);
}

}  // namespace
}  // namespace longstride
