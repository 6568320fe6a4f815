#include "longstride/model/quantized_parameters.h"

namespace longstride {

namespace {

// The parameter table with one element for each row of a product's weight.
std::vector<ParameterSpec> table_of_scales(const ModelConfig& config) {
  std::vector<ParameterSpec> table = parameter_table(config);
  for (ParameterSpec& spec : table)
    if (spec.product) spec.shape.resize(1);
  return table;
}

constexpr auto kProducts = ParameterStore::Which::products;

}  // namespace

int64_t QuantizedParameters::bytes(const ModelConfig& config) {
  return ParameterStore::bytes(parameter_table(config), DType::i8, kProducts) +
         ParameterStore::bytes(table_of_scales(config), DType::f32, kProducts);
}

QuantizedParameters::QuantizedParameters(const ModelConfig& config, const ParameterStore& weights,
                                         Device device)
    : values_(parameter_table(config), device, DType::i8, kProducts),
      scales_(table_of_scales(config), device, DType::f32, kProducts) {
  OpContext context;
  context.device = device;
  for (size_t i = 0; i < values_.tensors().size(); ++i)
    if (values_[i]) run(context, Quantize{weights[i], {values_[i], scales_[i]}});
  const ModelParameters values = by_role(config, values_, {}), scales = by_role(config, scales_, {});
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const BlockParameters &v = values.blocks[layer], &s = scales.blocks[layer];
    blocks_.push_back({{v.qkv_weight, s.qkv_weight},
                       {v.projection_weight, s.projection_weight},
                       {v.up_weight, s.up_weight},
                       {v.down_weight, s.down_weight}});
  }
  output_ = {values.output_weight, scales.output_weight};
}

void QuantizedParameters::dequantize_to(const ParameterStore& store) const {
  for (size_t i = 0; i < values_.tensors().size(); ++i) {
    if (!values_[i]) continue;
    OpContext context;
    context.device.kind = values_[i].device;
    run(context, Dequantize{{values_[i], scales_[i]}, store[i]});
  }
}

}  // namespace longstride
