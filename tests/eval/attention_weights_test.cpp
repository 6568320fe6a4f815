// What heads look at, against a softmax that is written out.
#include "longstride/eval/attention_weights.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "longstride/pattern/pattern.h"

#include "tests/support/random_model.h"

namespace longstride {
namespace {

using support::changed_config;
using support::random_bytes;
using support::RandomModel;
using support::small_config;

// The weights of one query by the definition, from what the layer's attention read.
std::vector<double> by_definition(const std::vector<float>& queries, const std::vector<float>& keys,
                                  const Pattern& pattern, int64_t heads, int64_t head, int64_t query,
                                  int64_t n) {
  const int64_t width = std::ssize(queries) / (n * heads);
  std::vector<double> weights(static_cast<size_t>(n));
  double sum = 0;
  for (int64_t k = 0; k <= query; ++k) {
    if (!pattern.allows(query, k)) continue;
    double score = 0;
    for (int64_t i = 0; i < width; ++i)
      score += static_cast<double>(queries[(query * heads + head) * width + i]) *
               static_cast<double>(keys[(k * heads + head) * width + i]);
    sum += weights[k] = std::exp(score / std::sqrt(static_cast<double>(width)));
  }
  for (double& weight : weights) weight /= sum > 0 ? sum : 1;
  return weights;
}

TEST(AttentionWeights, AreTheSoftmaxOfWhatTheLayerRead) {
  for (const char* text : {"fixed:8,2", "window:4|summary:8,3"}) {
    SCOPED_TRACE(text);
    const ModelConfig config = changed_config(text, 40);
    const RandomModel model(config);
    const std::vector<uint8_t> bytes = random_bytes(40, 3);
    Transformer transformer(config, ComputePlan{});
    const int64_t layer = config.layers - 1, n = config.context;
    std::vector<float> queries, keys;
    std::vector<uint8_t> tokens = bytes;
    transformer.prefill(model.parameters, Tensor(tokens.data(), DType::u8, {1, n}),
                        [&](int64_t index, const LayerRows& rows) {
                          if (index != layer) return;
                          queries = floats_of(rows.queries), keys = floats_of(rows.keys);
                        });
    const LayerWeights found = attention_weights(transformer, model.parameters, bytes, layer, 1000);
    ASSERT_EQ(found.cells, n);
    EXPECT_EQ(found.queries, n);
    ASSERT_EQ(std::ssize(found.heads), config.heads);
    for (int64_t head = 0; head < config.heads; ++head) {
      const Pattern pattern = config.schedule().layer(layer).for_head(head, config.heads);
      const HeadWeights& of_head = found.heads[static_cast<size_t>(head)];
      double distance = 0, itself = 0, seen = 0, allowed = 0;
      for (int64_t q = 0; q < n; ++q) {
        const std::vector<double> expected = by_definition(queries, keys, pattern, config.heads, head, q, n);
        const double sum = std::accumulate(expected.begin(), expected.end(), 0.0);
        seen += sum;
        for (int64_t k = 0; k < n; ++k) {
          const auto cell = static_cast<size_t>(q * n + k);
          ASSERT_NEAR(of_head.weights[cell], expected[k], 1e-6) << head << " " << q << " " << k;
          ASSERT_EQ(of_head.allowed[cell] != 0, k <= q && pattern.allows(q, k));
          distance += expected[k] * static_cast<double>(q - k);
          allowed += of_head.allowed[cell];
        }
        itself += expected[q];
      }
      EXPECT_NEAR(of_head.distance, distance / seen, 1e-6);
      EXPECT_NEAR(of_head.itself, itself / seen, 1e-6);
      EXPECT_NEAR(of_head.keys, allowed / seen, 1e-9);
      EXPECT_GE(of_head.effective, 1);
      EXPECT_LE(of_head.effective, of_head.keys);
      double through = 0;
      for (const HeadWeights::OfTerm& term : of_head.terms) through += term.weight;
      EXPECT_NEAR(through, 1, 1e-9);
    }
  }
}

// A coarse map has the means of the fine one: rows add up to 1 where every query sees a key.
TEST(AttentionWeights, CoarseMapsKeepTheWeight) {
  const ModelConfig config = small_config("strided:5", 96);
  const RandomModel model(config);
  Transformer transformer(config, ComputePlan{});
  const LayerWeights coarse = attention_weights(transformer, model.parameters, random_bytes(96, 4), 0, 7);
  EXPECT_EQ(coarse.cells, 7);
  EXPECT_EQ(coarse.queries, 96);
  for (const HeadWeights& head : coarse.heads)
    for (int64_t row = 0; row < 7; ++row) {
      const auto begin = head.weights.begin() + row * 7;
      EXPECT_NEAR(std::accumulate(begin, begin + 7, 0.0), 1, 1e-5);
    }
}

TEST(AttentionWeights, RefuseWhatIsNotThere) {
  const ModelConfig config = small_config("dense", 16);
  const RandomModel model(config);
  Transformer transformer(config, ComputePlan{});
  EXPECT_THROW(attention_weights(transformer, model.parameters, random_bytes(16, 1), config.layers, 4),
               Error);
  EXPECT_THROW(attention_weights(transformer, model.parameters, random_bytes(16, 1), -1, 4), Error);
  EXPECT_THROW(attention_weights(transformer, model.parameters, random_bytes(15, 1), 0, 4), Error);
}

}  // namespace
}  // namespace longstride
