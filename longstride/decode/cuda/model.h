// A model and its caches as the kernels read them, for the host code of steps.cpp.
#pragma once

#include <vector>

#include "longstride/decode/cuda/args.h"
#include "longstride/decode/engine.h"

namespace longstride::cuda::decode {

// With pointers into the model's tensors and caches.
struct Described {
  Args args{};
  std::vector<Layer> layers;
  std::vector<Head> heads;
  std::vector<KeyStore> stores;
  DType product = DType::f32;
};

// The sizes alone; `stores` counts distinct key stores. Throws Error for what the kernels cannot decode.
Args args_of(const ModelConfig& config, int64_t stores, int64_t streams);

// `rotation` is a table of model/rotary.h for all positions that are decoded, or empty.
Described describe(const EngineParts& parts, const Tensor& rotation, int64_t streams);

// Allocates what a step works on; the same whether `arena` measures or deals out. In an arena of its own each
// room begins with a line of the GPU's caches (128 bytes).
void lay_out(Args& args, DType product, Arena& arena);

}  // namespace longstride::cuda::decode
