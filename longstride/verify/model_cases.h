// Small models of every kind, for the checks of training and of decoding, and weights for them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/model/config.h"
#include "longstride/model/parameters.h"
#include "longstride/model/reference.h"
#include "longstride/verify/check.h"

namespace longstride::verify {

struct ModelCase {
  ModelConfig config;
  int64_t batch = 2;
  double dropout = 0;
  DType product = DType::f32;

  // The scale of the losses. It gives their mean, but not in f16, where the gradients would be too small.
  float scale() const {
    return product == DType::f16 ? 1.0f : 1.0f / static_cast<float>(batch * config.context);
  }

  std::string name() const;
};

std::vector<ModelCase> model_cases(Effort effort);

// Initial weights, but random also where training starts with zero (output matrix, biases) or one (gains),
// so that every result depends on every weight. Also written to `store`.
reference::Parameters<float> random_weights(const ModelConfig& config,
                                            const std::vector<ParameterSpec>& table,
                                            const ParameterStore& store, uint64_t seed);

template <class To, class From>
std::vector<To> as(const std::vector<From>& from) {
  return {from.begin(), from.end()};
}

template <class To, class From>
reference::Parameters<To> as(const reference::Parameters<From>& from) {
  reference::Parameters<To> to;
  for (const std::vector<From>& values : from) to.push_back(as<To>(values));
  return to;
}

}  // namespace longstride::verify
