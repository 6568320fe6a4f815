// Draws a byte from the logits of a model.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace longstride {

struct SamplerConfig {
  double temperature = 1;  // logits are divided by it; 0 takes the likeliest byte
  int64_t top_k = 0;       // keep the k likeliest bytes; 0: all
  double top_p = 1;        // keep the fewest likeliest bytes whose probabilities sum to p or more
  uint64_t seed = 1;

  // Throws Error unless temperature >= 0, top_k >= 0 and 0 < top_p <= 1.
  void check() const;
};

// How the bytes of one sequence are drawn: byte p with the random number (sampler.seed, stream, origin + p).
struct Draw {
  SamplerConfig sampler = {};
  uint32_t stream = 0;
  int64_t origin = 0;
};

// The probability of each byte: softmax(logits / temperature), cut to the top_k likeliest, renormalised, cut
// to the top_p likeliest, renormalised. Computed in double. Of equally likely bytes the lower counts as
// likelier. Bytes that are cut have exactly 0. Throws Error unless there are 256 logits, none of them NaN or
// +infinity and not all -infinity.
std::array<double, 256> sampling_distribution(std::span<const float> logits, const SamplerConfig& config);

// One byte from that distribution: a pure function of the logits and (config.seed, stream, position).
uint8_t draw(std::span<const float> logits, const SamplerConfig& config, uint32_t stream, int64_t position);

}  // namespace longstride
