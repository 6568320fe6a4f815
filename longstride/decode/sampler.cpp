#include "longstride/decode/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "longstride/base/check.h"
#include "longstride/base/rng.h"

namespace longstride {

void SamplerConfig::check() const {
  LONGSTRIDE_CHECK(std::isfinite(temperature) && temperature >= 0, "temperature = {}, must be 0 or more",
                   temperature);
  LONGSTRIDE_CHECK(top_k >= 0, "top-k = {}, must be 0 (all bytes) or more", top_k);
  LONGSTRIDE_CHECK(top_p > 0 && top_p <= 1, "top-p = {}, must be above 0 and at most 1", top_p);
}

namespace {

constexpr size_t kBytes = 256;

size_t likeliest(std::span<const float> logits) {
  size_t best = 0;
  for (size_t byte = 0; byte < kBytes; ++byte) {
    LONGSTRIDE_CHECK(!std::isnan(logits[byte]) && logits[byte] != std::numeric_limits<float>::infinity(),
                     "the model's logit of byte {} is {}: its weights are damaged, or training diverged",
                     byte, logits[byte]);
    if (logits[byte] > logits[best]) best = byte;
  }
  LONGSTRIDE_CHECK(std::isfinite(logits[best]),
                   "the model gives no byte a probability: all logits are -infinity");
  return best;
}

void normalise(std::array<double, kBytes>& weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= total;
}

}  // namespace

std::array<double, 256> sampling_distribution(std::span<const float> logits, const SamplerConfig& config) {
  config.check();
  LONGSTRIDE_CHECK(logits.size() == kBytes, "sampling from {} logits, a model of bytes has {}", logits.size(),
                   kBytes);
  const size_t best = likeliest(logits);
  std::array<double, kBytes> weights{};
  if (config.temperature == 0) {
    weights[best] = 1;
    return weights;
  }
  for (size_t byte = 0; byte < kBytes; ++byte)
    weights[byte] = std::exp((static_cast<double>(logits[byte]) - logits[best]) / config.temperature);

  const bool cut_k = config.top_k > 0 && config.top_k < static_cast<int64_t>(kBytes);
  if (cut_k || config.top_p < 1) {
    std::array<uint8_t, kBytes> order;
    std::iota(order.begin(), order.end(), uint8_t{0});
    std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return logits[a] > logits[b]; });
    size_t kept = cut_k ? static_cast<size_t>(config.top_k) : kBytes;
    if (config.top_p < 1) {
      double total = 0, sum = 0;
      for (size_t i = 0; i < kept; ++i) total += weights[order[i]];
      size_t enough = 0;
      while (enough < kept && sum < config.top_p * total) sum += weights[order[enough++]];
      kept = enough;
    }
    for (size_t i = kept; i < kBytes; ++i) weights[order[i]] = 0;
  }
  normalise(weights);
  return weights;
}

uint8_t draw(std::span<const float> logits, const SamplerConfig& config, uint32_t stream, int64_t position) {
  const std::array<double, kBytes> probabilities = sampling_distribution(logits, config);
  const double u =
      RandomStream{config.seed, random_stream::kSample, stream}.uniform(static_cast<uint64_t>(position));
  double sum = 0;
  size_t last = 0;
  for (size_t byte = 0; byte < kBytes; ++byte) {
    if (probabilities[byte] == 0) continue;
    last = byte;
    sum += probabilities[byte];
    if (u < sum) break;
  }
  // The sum may end a rounding error below 1. A draw beyond it gives the last byte that can occur.
  return static_cast<uint8_t>(last);
}

}  // namespace longstride
