#include "bench/training_run.h"

#include <utility>
#include <vector>

#include "longstride/base/checksum.h"
#include "longstride/base/rng.h"

namespace longstride {

namespace {

Splits random_bytes(int64_t count) {
  std::vector<uint8_t> bytes;
  bytes.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count / 16; ++i) {
    const PhiloxBlock block = RandomStream{7}.block(i);
    const auto* begin = reinterpret_cast<const uint8_t*>(block.data());
    bytes.insert(bytes.end(), begin, begin + 16);
  }
  return split_corpus(std::make_shared<const Corpus>(std::move(bytes), ImageShape{}, "random bytes"), {1.0});
}

}  // namespace

RunConfig training_config(DType product, bool recompute) {
  RunConfig config;
  config.model.context = 4096;
  config.model.layers = 12;
  config.model.heads = 8;
  config.model.width = 512;
  config.model.pattern = "fixed:128,32";
  config.train.batch = 1;
  config.train.activations = recompute ? "recompute" : "keep";
  config.compute.device = "cpu";
  config.compute.precision = name_of(product);
  config.check();
  return config;
}

RunConfig enwik8_config() {
  RunConfig config;
  config.model.context = 12288;
  config.model.layers = 30;
  config.model.heads = 8;
  config.model.width = 512;
  config.model.pattern = "fixed:128,32";
  config.model.position_axes = {96, 128};
  config.train.batch = 2;
  config.train.learning_rate = 3.5e-4;
  config.train.warmup = 5000;
  config.train.weight_decay = 0.01;
  config.train.clip = 1.0;
  config.train.dropout = 0.4;
  config.train.activations = "keep";
  config.compute.device = "cuda";
  config.compute.precision = "bf16";
  return config;
}

std::unique_ptr<Trainer> make_trainer(const RunConfig& config) {
  return std::make_unique<Trainer>(config, random_bytes(int64_t{1} << 20));
}

double step_flops(const RunConfig& config) {
  return cost_of(config.model).training_flops() *
         static_cast<double>(config.train.batch * config.model.context);
}

std::string state_of(const Trainer& trainer) {
  Checksum checksum;
  const CheckpointContents contents = trainer.contents();
  for (const std::vector<NamedTensor>* tensors : {&contents.model, &contents.state})
    for (const NamedTensor& named : *tensors) checksum.update(named.tensor.data, named.tensor.bytes());
  return checksum.hex();
}

}  // namespace longstride
