// The weights of a random model on a GPU.
#pragma once

#include "tests/support/random_model.h"

namespace longstride::support {

inline constexpr Device kGpu{DeviceKind::cuda, 0};

// A model's weights on the GPU, products in `product`.
struct OnGpu {
  OnGpu(const RandomModel& model, DType product) : weights(model.table, kGpu, DType::f32) {
    for (size_t i = 0; i < model.table.size(); ++i) copy(model.weights[i], weights[i]);
    if (product != DType::f32) {
      products = ParameterStore(model.table, kGpu, product, ParameterStore::Which::products);
      for (size_t i = 0; i < model.table.size(); ++i)
        if (products[i]) run({kGpu, nullptr}, Convert{weights[i], products[i]});
    }
    parameters = by_role(model.config, weights, products);
  }
  ParameterStore weights, products;
  ModelParameters parameters;
};

}  // namespace longstride::support
