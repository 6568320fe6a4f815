// Decoding on the CPU: a step is run op by op, over the rows of those sequences that take part.
#pragma once

#include <cstdint>
#include <memory>

#include "longstride/sample/decoder.h"

namespace longstride {

// The memory behind `parameters`, the caches and `quantized`, which may be null, must outlive the engine.
std::unique_ptr<StepEngine> make_cpu_steps(const ModelConfig& config, const ModelParameters& parameters,
                                           const KeyCaches& caches, const DecoderOptions& options,
                                           const QuantizedParameters* quantized);
// What it allocates: rows of activations and scratch. `product` is the weights' dtype.
int64_t cpu_steps_bytes(const ModelConfig& config, DType product, const DecoderOptions& options);

}  // namespace longstride
