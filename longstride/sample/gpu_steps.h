// A decoder's steps on a GPU: ops/decode_step.h for a model and its caches.
#pragma once

#include <memory>

#include "longstride/ops/decode_step.h"
#include "longstride/sample/decoder.h"

namespace longstride {

// `parameters` and `caches` must outlive what is returned.
std::unique_ptr<StepEngine> make_gpu_steps(const ModelConfig& config, const ModelParameters& parameters,
                                           const KeyCaches& caches, Device device,
                                           const DecoderOptions& options);

// Bytes that it allocates on the GPU, caches apart.
int64_t gpu_steps_bytes(const ModelConfig& config, DType product, const DecoderOptions& options);

}  // namespace longstride
