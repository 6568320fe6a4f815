#include "longstride/eval/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/random_model.h"

namespace longstride {
namespace {

using support::random_bytes;
using support::RandomModel;
using support::small_config;

TEST(EvaluationWindows, ScoreEveryByteOnceWithTheContextAskedFor) {
  for (int64_t context = 1; context <= 9; ++context)
    for (int64_t min_context = 0; min_context < context; ++min_context)
      for (int64_t size = 1; size <= 40; ++size) {
        std::vector<int> scored(size, 0);
        for (const EvaluationWindow& window : evaluation_windows(size, context, min_context)) {
          ASSERT_GE(window.begin, 0);
          ASSERT_LE(window.begin + window.score_to, size);
          ASSERT_LE(window.score_to, context);
          ASSERT_GE(window.scored(), 1);
          ASSERT_LE(window.scored(), window.begin == 0 ? context : context - min_context);
          for (int64_t i = window.score_from; i < window.score_to; ++i) {
            ++scored[window.begin + i];
            // Context is the position in the window. A byte of the first window has all bytes before it.
            if (window.begin + i >= context) {
              ASSERT_GE(i, min_context) << size << " " << context << " " << min_context;
            }
          }
        }
        ASSERT_EQ(std::count(scored.begin(), scored.end(), 1), size)
            << size << " " << context << " " << min_context;
      }
}

TEST(EvaluationWindows, AreThoseOfThePapersTable3) {
  // Windows of 12,288 advance by 128 if 12,160 bytes of context are asked for.
  const auto windows = evaluation_windows(12288 + 2 * 128, 12288, 12160);
  const std::vector<EvaluationWindow> expected = {{0, 0, 12288}, {128, 12160, 12288}, {256, 12160, 12288}};
  EXPECT_EQ(windows, expected);
}

TEST(EvaluationWindows, WithoutContextAreDisjointAndTheLastIsShiftedBack) {
  const std::vector<EvaluationWindow> expected = {{0, 0, 10}, {10, 0, 10}, {13, 7, 10}};
  EXPECT_EQ(evaluation_windows(23, 10, 0), expected);
  EXPECT_EQ(evaluation_windows(4, 10, 3), (std::vector<EvaluationWindow>{{0, 0, 4}}));
}

TEST(EvaluationWindows, RefuseWhatCannotBe) {
  EXPECT_THROW(evaluation_windows(0, 10, 0), Error);
  EXPECT_THROW(evaluation_windows(100, 10, 10), Error);
  EXPECT_THROW(evaluation_windows(100, 10, -1), Error);
  EXPECT_THROW(record_windows(0, 10, 5), Error);
  EXPECT_THROW(record_windows(30, 10, 15), Error);
  EXPECT_THROW(record_windows(31, 10, 10), Error);
}

// The loss of byte `at` when the model sees the `seen` bytes before it and nothing else. It is the last
// position of a model of just that length, so neither batches nor padding nor shifted windows play a part.
double loss_of_byte(const RandomModel& model, const std::vector<uint8_t>& bytes, int64_t at, int64_t seen) {
  ModelConfig config = model.config;
  config.position_axes = config.axes();
  config.context = seen + 1;
  Transformer transformer(config, ComputePlan{});
  std::vector<uint8_t> tokens(bytes.begin() + at - seen, bytes.begin() + at + 1);
  std::vector<float> loss(tokens.size());
  transformer.evaluate(model.parameters, Tensor(tokens.data(), DType::u8, {1, seen + 1}),
                       Tensor(loss.data(), DType::f32, {1, seen + 1}));
  return loss.back();
}

struct Setting {
  int64_t size, min_context, batch;
};

class Protocol : public ::testing::TestWithParam<Setting> {};

TEST_P(Protocol, SumsTheLossesThatItsDefinitionNames) {
  const auto [size, min_context, batch] = GetParam();
  const int64_t context = 21;
  const RandomModel model(small_config("strided:5", context));
  const std::vector<uint8_t> bytes = random_bytes(size, 3);

  // By definition byte i < context has seen i bytes. Later bytes come in groups of context - min_context, of
  // which the last may be shorter. A byte with r more bytes of its group after it has seen context - 1 - r.
  double nats = 0;
  std::vector<double> nats_at(context, 0);
  std::vector<int64_t> count_at(context, 0);
  for (int64_t i = 0; i < size; ++i) {
    int64_t seen = i;
    if (i >= context) {
      const int64_t advance = context - min_context;
      const int64_t group_end = std::min(size, context + ((i - context) / advance + 1) * advance);
      seen = context - 1 - (group_end - 1 - i);
    }
    const double loss = loss_of_byte(model, bytes, i, seen);
    nats += loss;
    nats_at[seen] += loss;
    ++count_at[seen];
  }

  ComputePlan plan;
  plan.batch = batch;
  Transformer transformer(model.config, plan);
  const Evaluation result = evaluate_bytes(transformer, model.parameters, bytes, 0, min_context, 0);
  EXPECT_EQ(result.bytes, size);
  EXPECT_EQ(result.min_context, min_context);
  EXPECT_NEAR(result.nats / size, nats / size, 1e-4);
  EXPECT_NEAR(result.bits(), nats / size / std::numbers::ln2, 2e-4);
  EXPECT_NEAR(result.perplexity(), std::exp(nats / size), 1e-3 * std::exp(nats / size));
  EXPECT_EQ(result.count_at, count_at);
  for (int64_t position = 0; position < context; ++position)
    EXPECT_NEAR(result.nats_at[position], nats_at[position], 1e-3) << position;
}

INSTANTIATE_TEST_SUITE_P(Evaluate, Protocol,
                         ::testing::Values(Setting{100, 0, 1}, Setting{100, 0, 3}, Setting{105, 0, 5},
                                           Setting{100, 9, 4}, Setting{60, 20, 7}, Setting{21, 13, 2},
                                           Setting{22, 13, 2}, Setting{8, 0, 2}, Setting{8, 20, 2},
                                           Setting{1, 0, 1}));

TEST(Evaluate, AUniformModelHasEightBits) {
  const ModelConfig config = small_config("fixed:8,2", 32);
  const auto table = parameter_table(config);
  const ParameterStore weights(table, Device{}, DType::f32);
  initialise(table, 1, weights);  // the output matrix starts at zero
  Transformer transformer(config, ComputePlan{});
  const Evaluation result =
      evaluate_bytes(transformer, by_role(config, weights, {}), random_bytes(1000, 1), 0, 8, 0);
  EXPECT_NEAR(result.bits(), 8.0, 1e-6);
  EXPECT_NEAR(result.perplexity(), 256.0, 1e-3);
  EXPECT_NEAR(result.standard_error, 0.0, 1e-6);
  for (const CurvePoint& point : result.curve()) EXPECT_NEAR(point.bits, 8.0, 1e-5);
}

TEST(Evaluate, RecordsHaveTheirOwnWindows) {
  const int64_t context = 20;
  const RandomModel model(small_config("strided:5", context));
  for (const int64_t record : {20, 12}) {
    const std::vector<uint8_t> bytes = random_bytes(5 * record, 3);
    double nats = 0;
    for (int64_t r = 0; r < 5; ++r)
      for (int64_t i = 0; i < record; ++i) nats += loss_of_byte(model, bytes, r * record + i, i);
    ComputePlan plan;
    plan.batch = 2;
    Transformer transformer(model.config, plan);
    const Evaluation result = evaluate_bytes(transformer, model.parameters, bytes, record, 0, 0);
    EXPECT_EQ(result.windows, 5);
    EXPECT_EQ(result.bytes, 5 * record);
    EXPECT_NEAR(result.nats, nats, 1e-4 * nats);
    EXPECT_THROW(evaluate_bytes(transformer, model.parameters, bytes, record, 1, 0), Error);
    // Limits are cut to whole records, at least one.
    EXPECT_EQ(evaluate_bytes(transformer, model.parameters, bytes, record, 0, 2 * record + 1).bytes,
              2 * record);
    EXPECT_EQ(evaluate_bytes(transformer, model.parameters, bytes, record, 0, 1).bytes, record);
  }
}

TEST(Evaluate, IsRepeatableAndLimited) {
  const RandomModel model(small_config("strided:5", 21));
  const std::vector<uint8_t> bytes = random_bytes(150, 3);
  ComputePlan plan;
  plan.batch = 3;
  Transformer transformer(model.config, plan);
  std::vector<std::pair<int64_t, int64_t>> progress;
  const Evaluation first =
      evaluate_bytes(transformer, model.parameters, bytes, 0, 4, 100,
                     [&](int64_t done, int64_t total) { progress.emplace_back(done, total); });
  const Evaluation second = evaluate_bytes(transformer, model.parameters, bytes, 0, 4, 100);
  EXPECT_EQ(first.nats, second.nats);
  EXPECT_EQ(first.nats_at, second.nats_at);
  EXPECT_EQ(first.bytes, 100);
  const auto shorter = evaluate_bytes(transformer, model.parameters, std::span(bytes).first(100), 0, 4, 0);
  EXPECT_EQ(first.nats, shorter.nats);
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.back(), (std::pair<int64_t, int64_t>(100, 100)));
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
  EXPECT_THROW(evaluate_bytes(transformer, model.parameters, {}, 0, 0, 0), Error);
}

TEST(Evaluate, StandardErrorIsThatOfWindowMeans) {
  // For windows of equal length the ratio's error is that of a plain mean over the windows.
  const int64_t context = 16, count = 6;
  const RandomModel model(small_config("strided:5", context));
  const std::vector<uint8_t> bytes = random_bytes(context * count, 8);
  const std::vector<float> losses = model.losses(bytes);
  std::vector<double> means(count);
  for (int64_t w = 0; w < count; ++w)
    means[w] =
        std::accumulate(losses.begin() + w * context, losses.begin() + (w + 1) * context, 0.0) / context;
  const double mean = std::accumulate(means.begin(), means.end(), 0.0) / count;
  double variance = 0;
  for (const double value : means) variance += (value - mean) * (value - mean) / (count - 1);
  Transformer transformer(model.config, ComputePlan{});
  const Evaluation result = evaluate_bytes(transformer, model.parameters, bytes, 0, 0, 0);
  EXPECT_NEAR(result.standard_error, std::sqrt(variance / count) / std::numbers::ln2, 1e-5);
}

TEST(Evaluation, CurveBucketsArePowersOfTwo) {
  Evaluation result;
  result.nats_at = {1, 2, 3, 4, 5, 6, 7};
  result.count_at = {1, 1, 1, 1, 0, 2, 1};
  const auto curve = result.curve();
  ASSERT_EQ(curve.size(), 4u);
  EXPECT_EQ(curve[2].first, 2);
  EXPECT_EQ(curve[2].last, 3);
  EXPECT_EQ(curve[2].count, 2);
  EXPECT_NEAR(curve[2].bits, 3.5 / std::numbers::ln2, 1e-12);
  EXPECT_EQ(curve[3].first, 4);
  EXPECT_EQ(curve[3].last, 6);
  EXPECT_EQ(curve[3].count, 3);
  EXPECT_NEAR(curve[3].bits, 18 / 3.0 / std::numbers::ln2, 1e-12);
  result.count_at = {0, 0, 0, 0, 0, 0, 1};
  ASSERT_EQ(result.curve().size(), 1u);
}

}  // namespace
}  // namespace longstride
