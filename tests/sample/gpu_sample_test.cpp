// The cached decoder on a GPU against the parallel forward there and against the CPU. Skipped where there is
// no GPU.
#include <cmath>

#include <gtest/gtest.h>

#include "longstride/device/cuda.h"
#include "longstride/sample/decoder.h"

#include "tests/sample/gpu_weights.h"

namespace longstride {
namespace {

using testing::kGpu;
using testing::OnGpu;
using testing::random_bytes;
using testing::RandomModel;
using testing::small_config;

double loss_of(const float* logits, uint8_t token) {
  double most = logits[0], sum = 0;
  for (int64_t i = 0; i < kVocabulary; ++i) most = std::max<double>(most, logits[i]);
  for (int64_t i = 0; i < kVocabulary; ++i) sum += std::exp(logits[i] - most);
  return most + std::log(sum) - logits[token];
}

class GpuSample : public ::testing::TestWithParam<std::tuple<const char*, DType>> {
 protected:
  void SetUp() override {
    const std::string reason = cuda::why_not(kGpu.index);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_P(GpuSample, TheCacheGivesWhatTheParallelForwardGives) {
  const auto& [pattern, product] = GetParam();
  const RandomModel model(small_config(pattern, 60));
  const OnGpu gpu(model, product);
  const int64_t streams = 3, context = model.config.context;
  const std::vector<uint8_t> tokens = random_bytes(streams * context, 11);
  const std::vector<float> expected = model.losses(tokens);
  for (const int64_t primed : {int64_t{0}, int64_t{5}, int64_t{33}}) {
    Decoder decoder(model.config, gpu.parameters, kGpu, streams);
    if (primed > 0) {
      std::vector<uint8_t> beginnings;
      for (int64_t s = 0; s < streams; ++s)
        beginnings.insert(beginnings.end(), tokens.begin() + s * context,
                          tokens.begin() + s * context + primed);
      decoder.prefill(Tensor(beginnings.data(), DType::u8, {streams, primed}));
    }
    double worst = 0, sum = 0, count = 0;
    for (int64_t position = primed; position < context; ++position) {
      std::vector<uint8_t> previous(streams);
      for (int64_t s = 0; s < streams && position > 0; ++s) previous[s] = tokens[s * context + position - 1];
      const Tensor logits = decoder.step(previous, position);
      for (int64_t s = 0; s < streams; ++s) {
        const int64_t at = s * context + position;
        const double difference =
            std::abs(loss_of(logits.as<float>() + s * kVocabulary, tokens[at]) - expected[at]);
        if (!(difference <= worst)) worst = difference;
        sum += difference;
        ++count;
      }
    }
    // What 16 bits round is a matter of luck for the one, but not for the mean.
    if (product == DType::f32) {
      EXPECT_LT(worst, 2e-4) << "primed " << primed;
    }
    EXPECT_LT(sum / count, product == DType::bf16 ? 0.1 : 0.02) << "primed " << primed;
  }
}

INSTANTIATE_TEST_SUITE_P(Patterns, GpuSample,
                         ::testing::Combine(::testing::Values("dense", "fixed:16,4", "strided:8",
                                                              "window:4|stride:4"),
                                            ::testing::Values(DType::f32, DType::bf16, DType::f16)));

TEST(GpuQuantized, EightBitWeightsGiveWhatTheyGiveOnTheCpu) {
  const std::string reason = cuda::why_not(kGpu.index);
  if (!reason.empty()) GTEST_SKIP() << reason;
  RandomModel model(small_config("fixed:16,4", 40));
  const OnGpu gpu(model, DType::f32);
  const QuantizedParameters there(model.config, gpu.weights, kGpu);
  const QuantizedParameters here(model.config, model.weights, Device{});
  Decoder on_gpu(model.config, gpu.parameters, kGpu, 1, &there);
  Decoder on_cpu(model.config, model.parameters, Device{}, 1, &here);
  const std::vector<uint8_t> tokens = random_bytes(40, 3);
  for (int64_t position = 0; position < 40; ++position) {
    const std::vector<uint8_t> previous{position > 0 ? tokens[position - 1] : uint8_t{0}};
    const Tensor a = on_gpu.step(previous, position), b = on_cpu.step(previous, position);
    for (int64_t i = 0; i < kVocabulary; ++i) EXPECT_NEAR(a.as<float>()[i], b.as<float>()[i], 0.02);
  }
}

}  // namespace
}  // namespace longstride
