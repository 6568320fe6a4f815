// Decoding on a GPU: a step is one piece of work there.
#pragma once

#include <cstdint>
#include <memory>

#include "longstride/sample/decoder.h"

namespace longstride {

// The memory behind `parameters` and the caches must outlive the engine.
std::unique_ptr<StepEngine> make_gpu_steps(const ModelConfig& config, const ModelParameters& parameters,
                                           const KeyCaches& caches, Device device,
                                           const DecoderOptions& options);
// What it allocates on the device. `product` is the weights' dtype.
int64_t gpu_steps_bytes(const ModelConfig& config, DType product, const DecoderOptions& options);

}  // namespace longstride
