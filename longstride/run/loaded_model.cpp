#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/ranges.h>

#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/ops/adam.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"

namespace longstride {

std::string identity_of(ModelConfig model) {
  // Fields that were added after the first digests count only if they differ from their default.
  constexpr std::array<std::string_view, 1> kLater{"convolution"};
  ModelConfig plain;
  FieldList fields, defaults;
  model.fields(fields);
  plain.fields(defaults);
  std::string identity;
  for (size_t i = 0; i < fields.all().size(); ++i) {
    const Field& field = fields.all()[i];
    const std::string value = field.value_as_toml();
    const bool later = std::find(kLater.begin(), kLater.end(), field.name) != kLater.end();
    if (!later || value != defaults.all()[i].value_as_toml())
      identity += fmt::format("{} = {}\n", field.name, value);
  }
  return identity;
}

namespace {

// The tensors are in the CPU's memory, in the order in which a file of weights holds them.
std::string digest_of(const ModelConfig& model, const std::vector<NamedTensor>& weights) {
  Checksum checksum;
  const auto add = [&](const std::string& line) {
    checksum.update(line.data(), static_cast<int64_t>(line.size()));
  };
  add(identity_of(model));
  for (const auto& [name, tensor] : weights) {
    add(fmt::format("{} {}\n", name, tensor.describe()));
    checksum.update(tensor.data, tensor.bytes());
  }
  return checksum.hex();
}

// A file of weights that is open.
struct Weights {
  int64_t step = 0;
  std::string digest;
  std::optional<OpenCheckpoint> checkpoint;
  std::optional<SafetensorsFile> alone;
  const SafetensorsFile& file() const { return checkpoint ? checkpoint->model() : *alone; }
};

Weights open_weights(const CheckpointInfo& info) {
  Weights weights;
  weights.step = info.step;
  weights.checkpoint.emplace(info);
  return weights;
}

Weights open_weights(const std::string& path, int64_t step) {
  Weights weights;
  weights.step = step;
  weights.alone.emplace(path);
  return weights;
}

// The files of the run that may have the wanted step, the likeliest first.
std::vector<std::function<Weights()>> candidates(const std::string& run, int64_t wanted) {
  std::vector<std::function<Weights()>> found;
  const std::vector<CheckpointInfo> checkpoints = list_checkpoints(run);
  const auto add_checkpoint = [&](const CheckpointInfo& info) {
    found.emplace_back([info] { return open_weights(info); });
  };
  const std::optional<BestCheckpoint> best = wanted < 0 ? read_best(run) : std::nullopt;
  const int64_t step = best ? best->step : wanted;
  for (const CheckpointInfo& info : checkpoints)
    if (info.step == step) add_checkpoint(info);
  if (step >= 0)
    for (const std::string& path : pinned_models(run, step))
      found.emplace_back([path, step] { return open_weights(path, step); });
  const std::string model = run + "/model.safetensors";
  // The file itself says its step. Where a checkpoint has the step, the file need not be read.
  if (found.empty() || wanted >= 0) {
    std::optional<int64_t> published;
    try {
      published = published_step(run);
    } catch (const Error&) {
      if (found.empty() && checkpoints.empty()) throw;  // there is nothing else
    }
    if (published && (*published == step || (wanted < 0 && checkpoints.empty())))
      found.emplace_back([model, published] { return open_weights(model, *published); });
  }
  if (found.empty() && wanted < 0 && !checkpoints.empty()) add_checkpoint(checkpoints.back());
  return found;
}

Weights choose_weights(const std::string& run, const ModelConfig& model, const WeightChoice& choice) {
  const auto found = candidates(run, choice.step);
  if (found.empty() && choice.step >= 0) find_checkpoint(run, choice.step);  // says which steps exist
  LONGSTRIDE_CHECK(!found.empty(), "{}: no checkpoint yet; train it first with 'longstride train {}'", run,
                   run);
  const auto open = [&](const auto& candidate) {
    Weights weights = candidate();
    weights.digest = weights_digest(model, weights.file());
    return weights;
  };
  if (choice.digest.empty()) return open(found.front());
  // A damaged file does not hide another that is whole.
  std::optional<Weights> first;
  std::string damage;
  for (const auto& candidate : found) {
    try {
      Weights weights = open(candidate);
      if (weights.digest == choice.digest) return weights;
      if (!first) first = std::move(weights);
    } catch (const Error& error) {
      if (damage.empty()) damage = error.what();
    }
  }
  LONGSTRIDE_CHECK(first.has_value(), "{}", damage);
  return std::move(*first);
}

void check_layers(const ModelConfig& model, const SafetensorsFile& weights) {
  LONGSTRIDE_CHECK(model.layers <= std::ssize(weights.names()),
                   "{}: its model has {} layers, its weights {} tensors", weights.path(), model.layers,
                   weights.names().size());
}

void check_shapes(const std::vector<ParameterSpec>& table, const SafetensorsFile& weights) {
  for (const ParameterSpec& spec : table) {
    const Tensor tensor = weights.find_bytes(spec.name);
    const std::vector<int64_t> shape(tensor.shape.begin(), tensor.shape.begin() + tensor.rank);
    LONGSTRIDE_CHECK(tensor.dtype == DType::f32 && shape == spec.shape,
                     "{}: tensor '{}' is {}, but its model has f32 ({})", weights.path(), spec.name,
                     tensor.describe(), fmt::join(spec.shape, ", "));
  }
}

}  // namespace

std::string weights_digest(const ModelConfig& model, const SafetensorsFile& weights) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : weights.names()) tensors.push_back({name, weights.find_bytes(name)});
  return digest_of(model, tensors);
}

std::string LoadedModel::pin(const std::string& run_directory) const {
  try {
    pin_model(run_directory, step_, digest_, file_);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

LoadedModel::LoadedModel(const std::string& run_directory, const ComputeConfig& compute,
                         const WeightChoice& choice)
    : config_(read_run_config(run_directory)) {
  config_.compute = compute;
  config_.check();
  choose_device();

  const Weights weights = choose_weights(run_directory, config_.model, choice);
  step_ = weights.step;
  digest_ = weights.digest;
  file_ = weights.file().path();
  take(weights.file(), choice.int8);
}

LoadedModel::LoadedModel(const RunConfig& config, int64_t step, const SafetensorsFile& weights, bool int8)
    : config_(config), step_(step) {
  // The table itself has a row for each tensor.
  check_layers(config_.model, weights);
  config_.check();
  check_shapes(parameter_table(config_.model), weights);
  choose_device();
  digest_ = weights_digest(config_.model, weights);
  take(weights, int8);
}

void LoadedModel::take(const SafetensorsFile& weights, bool int8) {
  const std::vector<ParameterSpec> table = parameter_table(config_.model);
  const int64_t products =
      product_ == DType::f32 ? 0 : ParameterStore::bytes(table, product_, ParameterStore::Which::products);
  check_gpu_room(device_,
                 ParameterStore::bytes(table, DType::f32) + products +
                     (int8 ? QuantizedParameters::bytes(config_.model) : 0),
                 "the model", "use --device cpu");
  weights_ = ParameterStore(table, device_, DType::f32);
  load_into(weights, "", weights_.named(table, ""));
  make_products(int8);
}

LoadedModel::LoadedModel(const RunConfig& config, int64_t step, const std::vector<NamedTensor>& weights)
    : config_(config), step_(step) {
  choose_device();
  const std::vector<ParameterSpec> table = parameter_table(config_.model);
  const ParameterStore on_cpu(table, {}, DType::f32);
  LONGSTRIDE_CHECK(weights.size() == table.size(), "the model has {} tensors of weights, {} are given",
                   table.size(), weights.size());
  for (size_t i = 0; i < table.size(); ++i) {
    LONGSTRIDE_CHECK(weights[i].name == table[i].name, "tensor {} of the weights is {}, must be {}", i,
                     weights[i].name, table[i].name);
    copy(weights[i].tensor, on_cpu[i]);
  }
  digest_ = digest_of(config_.model, on_cpu.named(table, ""));
  weights_ = ParameterStore(table, device_, DType::f32);
  for (size_t i = 0; i < table.size(); ++i) copy(on_cpu[i], weights_[i]);
  make_products(false);
}

void LoadedModel::choose_device() {
  set_threads(static_cast<int>(config_.compute.threads));
  device_ = parse_device(config_.compute.device);
  product_ = product_precision(config_.compute, device_);
}

void LoadedModel::make_products(bool int8) {
  const std::vector<ParameterSpec> table = parameter_table(config_.model);
  if (product_ != DType::f32) {
    products_ = ParameterStore(table, device_, product_, ParameterStore::Which::products);
    OpContext context;
    context.device = device_;
    for (size_t i = 0; i < table.size(); ++i)
      if (products_[i]) run(context, Convert{weights_[i], products_[i]});
  }
  if (int8) {
    quantized_ = QuantizedParameters(config_.model, weights_, device_);
    quantized_.dequantize_to(products_.empty() ? weights_ : products_);
  }
  parameters_ = by_role(config_.model, weights_, products_);
}

}  // namespace longstride
