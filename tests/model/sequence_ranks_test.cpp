// Ranks that share sequences have the losses and, together, the gradients of one that has them whole. The ranks are
// threads here.
#include "longstride/model/sequence_ranks.h"

#include <cmath>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/threads.h"

#include "tests/support/random_model.h"
#include "tests/support/wires.h"

namespace longstride {
namespace {

struct Result {
  std::vector<float> evaluated, losses;
  std::unique_ptr<ParameterStore> gradients;
};

// One rank's evaluation, and its forward and backward pass.
Result run_rank(const support::RandomModel& model, std::vector<uint8_t> tokens, int64_t batch,
                const SequenceRanks& ranks, bool keeps) {
  set_threads(1);
  ComputePlan plan;
  plan.keep_received = keeps;
  plan.batch = batch;
  plan.sequence = ranks;
  const Tensor on_cpu(tokens.data(), DType::u8, {batch, model.config.context});
  Result result;
  const auto place = [&](std::vector<float>& losses) {
    losses.assign(tokens.size(), std::nanf(""));
    return Tensor(losses.data(), DType::f32, {batch, model.config.context});
  };
  Transformer(model.config, plan).evaluate(model.parameters, on_cpu, place(result.evaluated));
  plan.training = true;
  TrainingPass pass;
  pass.dropout = 0.25, pass.seed = 5, pass.step = 3, pass.first_sequence = 2;
  result.gradients = std::make_unique<ParameterStore>(model.table, Device{}, DType::f32);
  Transformer(model.config, plan)
      .forward_backward(model.parameters, on_cpu, pass, place(result.losses),
                        by_role(model.config, *result.gradients, {}));
  return result;
}

struct How {
  int64_t turns = 0;
  bool keeps = false;
};

// *sent: the bytes that travelled.
void expect_the_same(const ModelConfig& config, int64_t batch, int64_t parts, How how = {},
                     int64_t* sent = nullptr) {
  const support::RandomModel model(config);
  const std::vector<uint8_t> tokens = support::random_bytes(batch * config.context, 3);
  const Result whole = run_rank(model, tokens, batch, {}, false);
  support::Wires wires;
  std::vector<Result> results(static_cast<size_t>(parts));
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < parts; ++part)
    threads.emplace_back([&, part] {
      const std::shared_ptr<DeviceComm> devices =
          std::make_shared<support::ByWires>(wires, static_cast<int>(part));
      try {
        results[static_cast<size_t>(part)] =
            run_rank(model, tokens, batch, {parts, part, 0, &devices, how.turns}, how.keeps);
      } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(wires.all_received());
  if (sent != nullptr) *sent = wires.sent();
  if (::testing::Test::HasFailure()) return;

  for (const Result& result : results)
    for (size_t i = 0; i < tokens.size(); ++i)
      ASSERT_NEAR(result.evaluated[i], whole.evaluated[i], 1e-4) << "position " << i;
  for (size_t i = 0; i < tokens.size(); ++i) {
    float sum = 0;
    for (const Result& result : results) sum += result.losses[i];
    ASSERT_NEAR(sum, whole.losses[i], 1e-4) << "position " << i;
  }
  for (size_t p = 0; p < model.table.size(); ++p) {
    const float* const expected = (*whole.gradients)[p].as<float>();
    double size = 0, difference = 0;  // squares: of the gradients, and of what the ranks' sum is off
    for (int64_t e = 0; e < model.table[p].count(); ++e) {
      double off = -static_cast<double>(expected[e]);
      for (const Result& result : results) off += (*result.gradients)[p].as<float>()[e];
      size += std::pow(expected[e], 2);
      difference += std::pow(off, 2);
    }
    // Compared as vectors: one ill-conditioned position can enlarge rounding tenfold in a few elements (so on AVX2).
    EXPECT_LT(std::sqrt(difference), 3e-5 * std::sqrt(size) + 1e-6) << model.table[p].name;
  }
}

TEST(SequenceRanks, EveryPatternHasTheSameLossesAndGradients) {
  // A chunk is whole tiles of 64 queries in every order of the pattern.
  struct Case {
    const char* pattern;
    int64_t apart = 1;
  };
  for (const Case& c : {Case{"dense"},
                        {"window:70"},
                        {"block:64"},
                        {"block:96"},
                        {"fixed:64,8"},
                        {"fixed:32,8|window:5"},
                        {"strided:3", 3},
                        {"dilated:3,2", 2},
                        {"summary:32,4+window:9"},
                        {"prefix:40+window:3"}})
    for (const int64_t parts : {2, 3}) {
      SCOPED_TRACE(std::string(c.pattern) + ", parts " + std::to_string(parts));
      expect_the_same(support::changed_config(c.pattern, 2 * parts * 64 * c.apart), 1, parts);
    }
}

TEST(SequenceRanks, SeveralSequencesAndPlainModels) {
  expect_the_same(support::changed_config("fixed:64,8", 256), 3, 2);
  ModelConfig config = support::small_config("strided:2,window:20", 1024, 3);
  config.positions = "rotary";
  expect_the_same(config, 2, 4);
}

TEST(SequenceRanks, HeadsInTurnsAndWhatIsKeptChangeNothing) {
  for (const char* pattern : {"dense", "fixed:64,8", "strided:3|window:20"})
    for (const bool keeps : {false, true}) {
      SCOPED_TRACE(std::string(pattern) + (keeps ? ", kept" : ""));
      ModelConfig config = support::changed_config(pattern, 3 * 2 * 2 * 64);
      config.heads = 4;
      expect_the_same(config, 2, 2, {.turns = 2, .keeps = keeps});
    }
}

TEST(SequenceRanks, WhatIsKeptDoesNotTravelTwice) {
  ModelConfig config = support::small_config("dense", 256, 3);
  config.positions = "rotary";
  int64_t received_again = 0, kept = 0;
  expect_the_same(config, 1, 2, {}, &received_again);
  expect_the_same(config, 1, 2, {.keeps = true}, &kept);
  // For each layer an evaluation, a forward pass, one more for the backward pass, and gradients.
  const double losses = 2 * 128 * sizeof(float);  // of the evaluation
  EXPECT_EQ(4 * (static_cast<double>(kept) - losses), 3 * (static_cast<double>(received_again) - losses));
}

TEST(SequenceRanks, HeadsThatLookAtOtherKeysHaveTurnsOfTheirOwn) {
  ModelConfig spread = support::changed_config("spread-fixed:64,16", 1024);
  spread.heads = 8;
  ModelConfig dense = spread;
  dense.pattern = "dense";
  int64_t of_spread = 0, of_dense = 0;
  expect_the_same(spread, 2, 2, {}, &of_spread);
  expect_the_same(dense, 2, 2, {}, &of_dense);
  expect_the_same(spread, 1, 4, {.keeps = true});
  // A quarter of the rows, and a little for the convolution and the losses.
  EXPECT_LT(static_cast<double>(of_spread), 0.3 * static_cast<double>(of_dense));
}

TEST(SequenceRanks, ARankHasOneChunkFromEachEnd) {
  const RankPositions positions(24, 2, {3, 1, 0, nullptr});
  std::vector<std::vector<int64_t>> found;
  for (const RankPositions::Chunk& c : positions.chunks())
    found.push_back({c.own, c.whole, c.first, c.count});
  EXPECT_THAT(found,
              ::testing::ElementsAre(std::vector<int64_t>{0, 4, 4, 4}, std::vector<int64_t>{4, 16, 16, 4},
                                     std::vector<int64_t>{8, 28, 4, 4}, std::vector<int64_t>{12, 40, 16, 4}));
}

}  // namespace
}  // namespace longstride
