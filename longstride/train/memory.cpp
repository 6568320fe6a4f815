#include "longstride/train/memory.h"

#include <optional>

#include "longstride/base/text.h"
#include "longstride/device/cuda.h"
#include "longstride/train/optimizer.h"
#include "longstride/train/trainer.h"

namespace longstride {

namespace {

// Settings that need less memory, those that cost the least time first.
std::optional<RunConfig> settings_that_fit(const RunConfig& config, int64_t free) {
  RunConfig changed = config;
  const bool keeps = config.train.activations == "keep";
  for (int64_t micro = config.train.micro(); micro >= 1; micro /= 2) {
    if (config.train.batch % micro != 0) continue;
    changed.train.micro_batch = micro;
    for (const char* activations : {"keep", "recompute", "offload"}) {
      if (!keeps && std::string_view(activations) == "keep") continue;
      changed.train.activations = activations;
      if (training_memory(changed).total() <= free) return changed;
    }
  }
  return {};
}

}  // namespace

ComputePlan training_plan(const RunConfig& config) {
  ComputePlan plan;
  plan.device = parse_device(config.compute.device);
  plan.product = product_precision(config.compute, plan.device);
  plan.batch = config.train.micro();
  plan.training = true;
  plan.recompute = config.train.activations != "keep";
  plan.offload = config.train.activations == "offload";
  return plan;
}

MemoryPlan training_memory(const RunConfig& config) {
  const ComputePlan plan = training_plan(config);
  MemoryPlan memory = plan_memory(config.model, plan, config.train.average > 0);
  memory.temporaries += Trainer::exchange_bytes(config) + Optimizer::table_bytes(config.model, plan.device);
  return memory;
}

void check_training_memory(const RunConfig& config) {
  const Device device = parse_device(config.compute.device);
  if (device.kind == DeviceKind::cpu) return;
  const cuda::DeviceMemory there = cuda::memory(device.index);
  const MemoryPlan needed = training_memory(config);
  if (needed.total() <= there.free) return;
  const std::optional<RunConfig> changed = settings_that_fit(config, there.free);
  std::string advice = "no setting of train.activations and train.micro_batch makes it fit";
  if (changed)
    advice = fmt::format("train.activations = \"{}\" and train.micro_batch = {} would fit with {}",
                         changed->train.activations, changed->train.micro(),
                         human_bytes(static_cast<double>(training_memory(*changed).total())));
  fail("not enough memory on the GPU: training needs {} ({} of it activations), {} of {} are free; {}",
       human_bytes(static_cast<double>(needed.total())),
       human_bytes(static_cast<double>(needed.activations + needed.temporaries)),
       human_bytes(static_cast<double>(there.free)), human_bytes(static_cast<double>(there.total)), advice);
}

}  // namespace longstride
