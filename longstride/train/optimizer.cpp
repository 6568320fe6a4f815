#include "longstride/train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace longstride {

Optimizer::Optimizer(const RunConfig& config, Device device, DType product)
    : config_(config),
      table_(parameter_table(config.model)),
      weights_(table_, device, DType::f32),
      gradients_(table_, device, DType::f32),
      first_(table_, device, DType::f32),
      second_(table_, device, DType::f32) {
  context_.device = device;
  if (config.train.average > 0) average_ = ParameterStore(table_, device, DType::f32);
  if (product != DType::f32)
    products_ = ParameterStore(table_, device, product, ParameterStore::Which::products);
  parameters_ = by_role(config.model, weights_, products_);
  gradient_roles_ = by_role(config.model, gradients_, {});
  initialise(table_, static_cast<uint64_t>(config.train.seed), weights_);
  if (!average_.empty()) copy(weights_.flat(), average_.flat());
  refresh_products(weights_);
  update_table_ = UpdateTable(device, slices());
}

bool Optimizer::finite() const {
  double squares = 0;
  for (const ParameterStore* store : {&weights_, &average_})
    for (const Tensor& tensor : store->tensors()) squares += sum_of_squares(context_, tensor);
  return std::isfinite(squares);
}

AdamStep Optimizer::adam(int64_t step, double rate) const {
  AdamStep adam;
  adam.step = step;
  adam.rate = rate;
  adam.beta1 = config_.train.beta1, adam.beta2 = config_.train.beta2, adam.epsilon = config_.train.epsilon;
  adam.decay = config_.train.weight_decay;
  // A young average would be mostly the random start; it shortens its memory to a tenth of the steps so far.
  const double t = static_cast<double>(step);
  adam.ema = std::min(config_.train.average, (1 + t) / (10 + t));
  return adam;
}

void Optimizer::update(UpdateControl* control) const {
  update_parameters(
      context_, update_table_,
      {weights_.flat(), gradients_.flat(), first_.flat(), second_.flat(), average_.flat(), products_.flat()},
      control);
}

std::vector<ParameterSlice> Optimizer::slices() const {
  std::vector<ParameterSlice> slices;
  for (size_t i = 0; i < table_.size(); ++i) {
    const bool copied = !products_.empty() && products_[i];
    slices.push_back(
        {weights_.offset(i), table_[i].count(), table_[i].decay, copied ? products_.offset(i) : -1});
  }
  return slices;
}

int64_t Optimizer::table_bytes(const ModelConfig& config, Device device) {
  std::vector<ParameterSlice> slices;
  for (const ParameterSpec& spec : parameter_table(config)) slices.push_back({.count = spec.count()});
  return UpdateTable::bytes(device, slices);
}

void Optimizer::refresh_products(const ParameterStore& from) const {
  if (products_.empty()) return;
  for (size_t i = 0; i < table_.size(); ++i)
    if (products_[i]) convert(context_, from[i], products_[i]);
}

std::vector<NamedTensor> Optimizer::model_tensors() const {
  return (average_.empty() ? weights_ : average_).named(table_, "");
}

std::vector<NamedTensor> Optimizer::state_tensors() const {
  std::vector<NamedTensor> result = first_.named(table_, "m.");
  for (NamedTensor& tensor : second_.named(table_, "v.")) result.push_back(std::move(tensor));
  if (!average_.empty())
    for (NamedTensor& tensor : weights_.named(table_, "raw.")) result.push_back(std::move(tensor));
  return result;
}

void Optimizer::loaded() { refresh_products(weights_); }

}  // namespace longstride
