// The weights of a model's matrix products in eight bits, for sampling.
#pragma once

#include <vector>

#include "longstride/model/parameters.h"
#include "longstride/ops/quantized_linear.h"

namespace longstride {

struct QuantizedBlock {
  QuantizedMatrix qkv, projection, up, down;
};

class QuantizedParameters {
 public:
  QuantizedParameters() = default;  // of no model
  // From the f32 weights in `weights`, which holds all parameters of the model.
  QuantizedParameters(const ModelConfig& config, const ParameterStore& weights, Device device);
  // What the constructor allocates.
  static int64_t bytes(const ModelConfig& config);

  // Overwrites the weights of products in `store`, f32 or bf16, with the values that the eight bits mean.
  void dequantize_to(const ParameterStore& store) const;

  bool empty() const { return blocks_.empty(); }
  const std::vector<QuantizedBlock>& blocks() const { return blocks_; }
  const QuantizedMatrix& output() const { return output_; }

 private:
  ParameterStore values_, scales_;  // i8 (out, in), f32 (out)
  std::vector<QuantizedBlock> blocks_;
  QuantizedMatrix output_;
};

}  // namespace longstride
