// Models with random weights, large enough that every weight, position and key shows in the logits.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "longstride/base/rng.h"
#include "longstride/model/parameters.h"
#include "longstride/model/quantized_parameters.h"
#include "longstride/model/transformer.h"
#include "longstride/ops/adam.h"

namespace longstride::support {

inline ModelConfig small_config(const std::string& pattern, int64_t context, int64_t layers = 2,
                                int64_t heads = 2) {
  ModelConfig config;
  config.context = context;
  config.layers = layers;
  config.heads = heads;
  config.width = 24;
  config.qk_width = 16;
  config.feed_forward = 40;
  config.pattern = pattern;
  return config;
}

// The same with everything that a model may do to queries, keys, values and the input of the feed-forward.
inline ModelConfig changed_config(const std::string& pattern, int64_t context) {
  ModelConfig config = small_config(pattern, context);
  config.positions = "rotary";
  config.qk_norm = true;
  config.value_residual = 0.4;
  config.convolution = 4;
  return config;
}

struct RandomModel {
  explicit RandomModel(const ModelConfig& shape, uint64_t seed = 7, DType product = DType::f32)
      : config(shape), table(parameter_table(shape)), weights(table, Device{}, DType::f32) {
    config.check();
    for (size_t i = 0; i < table.size(); ++i) {
      const RandomStream random{seed, 99, static_cast<uint32_t>(i)};
      const ParameterSpec& spec = table[i];
      const bool embedding = spec.name.starts_with("embedding");
      const double deviation = spec.shape.size() == 1 ? 0.3
                               : embedding            ? 0.7
                                                      : 1.5 / std::sqrt(static_cast<double>(spec.shape[1]));
      float* w = weights[i].as<float>();
      for (int64_t e = 0; e < spec.count(); ++e)
        w[e] = static_cast<float>(spec.mean + deviation * random.normal(e));
    }
    if (product != DType::f32) {
      products = ParameterStore(table, Device{}, product, ParameterStore::Which::products);
      for (size_t i = 0; i < table.size(); ++i)
        if (products[i]) run(OpContext{}, Convert{weights[i], products[i]});
    }
    parameters = by_role(config, weights, products);
  }

  // Replaces weights of products by the values that eight bits mean, and returns the eight bits.
  QuantizedParameters quantize_products() {
    QuantizedParameters quantized(config, weights, Device{});
    quantized.dequantize_to(products.empty() ? weights : products);
    return quantized;
  }

  // Losses (nats) of tokens (batch, context), each given the ones before it, by the parallel forward.
  std::vector<float> losses(std::vector<uint8_t> tokens) const {
    ComputePlan plan;
    plan.batch = static_cast<int64_t>(tokens.size()) / config.context;
    plan.product = parameters.output_weight.dtype;
    Transformer transformer(config, plan);
    std::vector<float> loss(tokens.size(), std::nanf(""));
    transformer.evaluate(parameters, Tensor(tokens.data(), DType::u8, {plan.batch, config.context}),
                         Tensor(loss.data(), DType::f32, {plan.batch, config.context}));
    return loss;
  }

  ModelConfig config;
  std::vector<ParameterSpec> table;
  ParameterStore weights, products;
  ModelParameters parameters;
};

inline std::vector<uint8_t> random_bytes(int64_t count, uint64_t seed) {
  const RandomStream random{seed, 98, 0};
  std::vector<uint8_t> bytes(count);
  for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(random.block(i)[0]);
  return bytes;
}

}  // namespace longstride::support
