#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/ops/adam.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"

namespace longstride {

namespace {

std::string digest_of(ModelConfig model, const SafetensorsFile& weights) {
  Checksum checksum;
  const auto add = [&](const std::string& line) {
    checksum.update(line.data(), static_cast<int64_t>(line.size()));
  };
  FieldList fields;
  model.fields(fields);
  for (const Field& field : fields.all()) add(fmt::format("{} = {}\n", field.name, field.value_as_toml()));
  for (const std::string& name : weights.names()) {
    const Tensor tensor = weights.find_bytes(name);
    add(fmt::format("{} {}\n", name, tensor.describe()));
    checksum.update(tensor.data, tensor.bytes());
  }
  return checksum.hex();
}
}  // namespace

LoadedModel::LoadedModel(const std::string& run_directory, const ComputeConfig& compute,
                         const WeightChoice& choice)
    : config_(read_run_config(run_directory)) {
  config_.compute = compute;
  config_.check();
  set_threads(static_cast<int>(compute.threads));
  device_ = parse_device(compute.device);
  product_ = product_precision(compute, device_);

  const std::vector<CheckpointInfo> available = list_checkpoints(run_directory);
  LONGSTRIDE_CHECK(!available.empty(), "{}: no checkpoint yet; train it first with 'longstride train {}'",
                   run_directory, run_directory);
  CheckpointInfo info = available.back();
  if (choice.step >= 0) {
    info = find_checkpoint(run_directory, choice.step);
  } else if (const auto best = read_best(run_directory)) {
    info = find_checkpoint(run_directory, best->step);
  }
  const OpenCheckpoint checkpoint(info);
  step_ = info.step;
  digest_ = digest_of(config_.model, checkpoint.model());

  const std::vector<ParameterSpec> table = parameter_table(config_.model);
  const int64_t products =
      product_ == DType::f32 ? 0 : ParameterStore::bytes(table, product_, ParameterStore::Which::products);
  check_gpu_room(device_,
                 ParameterStore::bytes(table, DType::f32) + products +
                     (choice.int8 ? QuantizedParameters::bytes(config_.model) : 0),
                 "the model", "use --device cpu");
  weights_ = ParameterStore(table, device_, DType::f32);
  load_into(checkpoint.model(), "", weights_.named(table, ""));
  if (product_ != DType::f32) {
    products_ = ParameterStore(table, device_, product_, ParameterStore::Which::products);
    OpContext context;
    context.device = device_;
    for (size_t i = 0; i < table.size(); ++i)
      if (products_[i]) convert(context, weights_[i], products_[i]);
  }
  if (choice.int8) {
    quantized_ = QuantizedParameters(config_.model, weights_, device_);
    quantized_.dequantize_to(products_.empty() ? weights_ : products_);
  }
  parameters_ = by_role(config_.model, weights_, products_);
}

}  // namespace longstride
