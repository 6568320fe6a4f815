#include "longstride/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "longstride/ops/ordered_sum.h"
#include "longstride/train/memory.h"

namespace longstride {

namespace {

bool has_muon(const RunConfig& config) { return config.train.optimizer == "muon"; }

ParameterStore::Which with_second_moment(const RunConfig& config) {
  return has_muon(config) ? ParameterStore::Which::without_muon : ParameterStore::Which::all;
}

}  // namespace

bool Optimizer::has_parts(const RunConfig& config, int ranks) {
  return config.train.batch / batch_parts(config, ranks) > config.train.micro();
}

Optimizer::Optimizer(const RunConfig& config, Device device, DType product, int ranks)
    : config_(config),
      table_(parameter_table(config.model)),
      weights_(table_, device, DType::f32),
      gradients_(table_, device, DType::f32),
      first_(table_, device, DType::f32),
      second_(table_, device, DType::f32, with_second_moment(config)) {
  context_.device = device;
  if (config.train.average > 0) average_ = ParameterStore(table_, device, DType::f32);
  if (product != DType::f32)
    products_ = ParameterStore(table_, device, product, ParameterStore::Which::products);
  parameters_ = by_role(config.model, weights_, products_);
  gradient_roles_ = by_role(config.model, gradients_, {});
  if (has_parts(config, ranks)) {
    part_ = ParameterStore(table_, device, DType::f32);
    part_roles_ = by_role(config.model, part_, {});
  }
  for (size_t i = 0; i < table_.size(); ++i) {
    const auto layers = static_cast<int64_t>(block_begins_.size());
    if (layers < config.model.layers
            ? table_[i].name.starts_with(fmt::format("blocks.{}.", layers))
            : layers == config.model.layers && !table_[i].name.starts_with("blocks."))
      block_begins_.push_back(gradients_.offset(i));
  }
  initialise(table_, static_cast<uint64_t>(config.train.seed), weights_);
  if (!average_.empty()) copy(weights_.flat(), average_.flat());
  refresh_products(weights_);
  const Moves moves = Optimizer::moves(config, table_, &weights_, &second_, &products_);
  const DType orthogonal = newton_schulz_dtype(device, product);
  update_table_ = UpdateTable(device, moves.adam, moves.muon, orthogonal,
                              parse_newton_schulz(config.train.newton_schulz));
  scratch_ = Arena(device, update_scratch_bytes(device, update_table_.matrices(), orthogonal));
  context_.scratch = &scratch_;
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

MuonStep Optimizer::muon(double rate) const {
  return {.rate = rate, .momentum = config_.train.muon_momentum, .decay = config_.train.weight_decay};
}

void Optimizer::add_part() const {
  run(context_, OrderedSum{part_.flat().reshaped({1, part_.flat().count()}), 0, gradients_.flat()});
  fill_zero(part_.flat());
}

void Optimizer::update(UpdateControl* control) const {
  update_parameters(
      context_, update_table_,
      {weights_.flat(), gradients_.flat(), first_.flat(), second_.flat(), average_.flat(), products_.flat()},
      control);
}

Optimizer::Moves Optimizer::moves(const RunConfig& config, const std::vector<ParameterSpec>& table,
                                  const ParameterStore* weights, const ParameterStore* second,
                                  const ParameterStore* products) {
  Moves moves;
  const auto offset = [](const ParameterStore* store, size_t i) -> int64_t {
    return store != nullptr && !store->empty() && (*store)[i] ? store->offset(i) : -1;
  };
  for (size_t i = 0; i < table.size(); ++i) {
    const ParameterSpec& spec = table[i];
    const int64_t at = std::max<int64_t>(0, offset(weights, i)), copied = offset(products, i);
    if (!has_muon(config) || spec.muon_rows.empty()) {
      moves.adam.push_back({at, spec.count(), spec.decay, copied, offset(second, i)});
      continue;
    }
    const int64_t columns = spec.shape[1];
    int64_t before = 0;
    for (const int64_t rows : spec.muon_rows) {
      moves.muon.push_back({at + before, rows, columns, copied < 0 ? -1 : copied + before});
      before += rows * columns;
    }
  }
  return moves;
}

int64_t Optimizer::moment_bytes(const RunConfig& config) {
  const std::vector<ParameterSpec> table = parameter_table(config.model);
  return ParameterStore::bytes(table, DType::f32) +
         ParameterStore::bytes(table, DType::f32, with_second_moment(config));
}

int64_t Optimizer::working_bytes(const RunConfig& config, Device device, DType product) {
  const Moves moves = Optimizer::moves(config, parameter_table(config.model), nullptr, nullptr, nullptr);
  return UpdateTable::bytes(device, moves.adam, moves.muon) +
         update_scratch_bytes(device, in_working_order(moves.muon), newton_schulz_dtype(device, product));
}

void Optimizer::refresh_products(const ParameterStore& from) const {
  if (products_.empty()) return;
  for (size_t i = 0; i < table_.size(); ++i)
    if (products_[i]) run(context_, Convert{from[i], products_[i]});
}

std::vector<NamedTensor> Optimizer::model_tensors() const {
  return (average_.empty() ? weights_ : average_).named(table_, "");
}

std::vector<NamedTensor> Optimizer::state_tensors() const {
  // Muon's momentum has a name of its own: neither optimizer can go on with the other's.
  std::vector<NamedTensor> result;
  for (size_t i = 0; i < table_.size(); ++i)
    result.push_back({(second_[i] ? "m." : "muon.") + table_[i].name, first_[i]});
  for (NamedTensor& tensor : second_.named(table_, "v.")) result.push_back(std::move(tensor));
  if (!average_.empty())
    for (NamedTensor& tensor : weights_.named(table_, "raw.")) result.push_back(std::move(tensor));
  return result;
}

void Optimizer::loaded() { refresh_products(weights_); }

}  // namespace longstride
