// Sequences from a model, byte by byte.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "longstride/sample/decoder.h"
#include "longstride/sample/sampler.h"

namespace longstride {

struct GenerateConfig {
  int64_t length = 0;  // bytes a sequence, the given beginning included; at most the model's context
  SamplerConfig sampler;
  uint32_t first_stream = 0;  // sequence i draws from random stream first_stream + i
};

// Called for each byte in order of position, the beginning's too: `stream` counts from 0 within this call.
// Returning false ends the generation after this position.
using SampleSink = std::function<bool(int64_t stream, int64_t position, uint8_t byte)>;

// decoder.streams() sequences of config.length bytes (fewer if the sink ends it) that begin with `prime`,
// which may be empty and is cut to the length. Throws Error if the length is not in [1, context].
std::vector<std::vector<uint8_t>> generate(Decoder& decoder, const std::vector<uint8_t>& prime,
                                           const GenerateConfig& config, const SampleSink& sink = {});

// How many sequences to decode side by side: at most `count`, and no more than fit `memory` bytes, but at
// least one.
int64_t streams_that_fit(const ModelConfig& config, Device device, DType product, int64_t count,
                         int64_t memory);

}  // namespace longstride
