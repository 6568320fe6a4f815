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
  for (size_t i = 0; i < table_.size(); ++i)
    if (!average_.empty()) copy(weights_[i], average_[i]);
  refresh_products(weights_);
}

double Optimizer::gradient_norm() const {
  double squares = 0;
  for (const Tensor& gradient : gradients_.tensors()) squares += sum_of_squares(context_, gradient);
  return std::sqrt(squares);
}

bool Optimizer::finite() const {
  double squares = 0;
  for (const ParameterStore* store : {&weights_, &average_})
    for (const Tensor& tensor : store->tensors()) squares += sum_of_squares(context_, tensor);
  return std::isfinite(squares);
}

void Optimizer::step(int64_t step, double rate, double gradient_scale) {
  AdamStep adam;
  adam.step = step;
  adam.rate = rate;
  adam.beta1 = config_.train.beta1, adam.beta2 = config_.train.beta2, adam.epsilon = config_.train.epsilon;
  adam.gradient_scale = gradient_scale;
  // A young average would be mostly the random start; it shortens its memory to a tenth of the steps so far.
  const double t = static_cast<double>(step);
  adam.ema = std::min(config_.train.average, (1 + t) / (10 + t));
  for (size_t i = 0; i < table_.size(); ++i) {
    adam.decay = table_[i].decay ? config_.train.weight_decay : 0;
    adam_step(context_, adam, weights_[i], gradients_[i], first_[i], second_[i],
              average_.empty() ? Tensor() : average_[i], products_.empty() ? Tensor() : products_[i]);
  }
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
