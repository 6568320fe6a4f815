// Helpers of the decoder's tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "longstride/decode/decoder.h"

#include "tests/support/random_model.h"

namespace longstride::support {

// -log softmax(logits)[token] in double.
inline double loss_of(std::span<const float> logits, uint8_t token) {
  double most = logits[0], sum = 0;
  for (const float logit : logits) most = std::max<double>(most, logit);
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum) - logits[token];
}

// One sequence's logits.
inline std::vector<float> row(const Tensor& logits, int64_t stream) {
  const float* from = logits.as<float>() + stream * kVocabulary;
  return {from, from + kVocabulary};
}

// A model and, if its products have eight-bit weights, these weights.
struct WeightedModel {
  explicit WeightedModel(const ModelConfig& config, DType product = DType::f32, bool eight_bits = false)
      : model(config, 7, product) {
    if (eight_bits) quantized = model.quantize_products();
  }
  std::unique_ptr<Decoder> decoder(const DecoderOptions& options) const {
    return std::make_unique<Decoder>(model.config, model.parameters, Device{}, options,
                                     quantized.empty() ? nullptr : &quantized);
  }
  RandomModel model;
  QuantizedParameters quantized;
};

// The logits of `tokens`, decoded one after another and alone. Element p is the prediction of byte p.
inline std::vector<std::vector<float>> decoded_alone(const WeightedModel& model,
                                                     const std::vector<uint8_t>& tokens) {
  const auto decoder = model.decoder({});
  std::vector<std::vector<float>> logits;
  for (size_t position = 0; position < tokens.size(); ++position) {
    const uint8_t previous = position > 0 ? tokens[position - 1] : 0;
    logits.push_back(row(decoder->step({&previous, 1}, static_cast<int64_t>(position)), 0));
  }
  return logits;
}

}  // namespace longstride::support
