#include "longstride/train/memory.h"

#include <algorithm>
#include <array>
#include <optional>

#include <unistd.h>

#include "longstride/base/text.h"
#include "longstride/device/backend.h"
#include "longstride/device/memory.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/stages.h"
#include "longstride/train/gradient_sum.h"
#include "longstride/train/optimizer.h"
#include "longstride/train/trainer.h"
#include "longstride/train/verified_step.h"

namespace longstride {

namespace {

// What pinning may take of the CPU's memory without harm to all else there.
int64_t most_pinned() { return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 2; }

}  // namespace

std::optional<RunConfig> settings_that_fit(const RunConfig& config, int64_t room, int ranks) {
  constexpr std::array kActivations{"keep", "recompute", "offload"};
  RunConfig changed = config;
  const int64_t share = config.train.batch / batch_parts(config, ranks);
  const auto* present = std::find(kActivations.begin(), kActivations.end(), config.train.activations);
  for (const auto* activations = present; activations != kActivations.end(); ++activations) {
    changed.train.activations = *activations;
    for (int64_t micro = config.train.micro(); micro >= 1; --micro) {
      if (share % micro != 0) continue;
      changed.train.micro_batch = micro;
      const MemoryPlan memory = training_memory(changed, ranks);
      if (memory.total() <= room && memory.offloaded <= most_pinned()) return changed;
    }
  }
  return {};
}

namespace {

// `room` is that of one rank; what is named is that of all `here`.
std::string advice_for(const RunConfig& config, int64_t room, int ranks, int here) {
  const std::optional<RunConfig> changed = settings_that_fit(config, room, ranks);
  if (!changed) return "no setting of train.activations and train.micro_batch makes it fit";
  return fmt::format("train.activations = \"{}\" and train.micro_batch = {} would fit with {}",
                     changed->train.activations, changed->train.micro(),
                     human_bytes(here * training_memory(*changed, ranks).total()));
}

}  // namespace

ComputePlan training_plan(const RunConfig& config) {
  ComputePlan plan;
  plan.device = parse_device(config.compute.device);
  plan.product = product_precision(config.compute, plan.device);
  plan.batch = config.train.micro();
  plan.training = true;
  plan.sequence.parts = config.compute.sequence_ranks;
  const bool keeps = config.train.activations == "keep";
  plan.recompute = !keeps || plan.sequence.shared();
  plan.keep_received = keeps && plan.sequence.shared();
  plan.offload = config.train.activations == "offload";
  return plan;
}

namespace {
MemoryPlan memory_of_stage(const RunConfig& config, int ranks) {
  const ComputePlan plan = training_plan(config);
  MemoryPlan memory = plan_memory(config.model, plan, config.train.average > 0);
  memory.temporaries += Trainer::exchange_bytes(config, ranks) +
                        Optimizer::working_bytes(config, plan.device, plan.product, ranks);
  memory.optimizer = Optimizer::moment_bytes(config, ranks);
  memory.average = Optimizer::average_bytes(config, ranks);
  memory.temporaries +=
      gradient_sum_bytes(plan.device, ranks, memory.gradients / static_cast<int64_t>(sizeof(float)));
  if (Optimizer::has_parts(config, ranks)) memory.gradients *= 2;
  if (plan.device.kind == DeviceKind::cpu) memory.temporaries += bytes_to_take_twice(config, ranks);
  return memory;
}
}  // namespace

int batch_parts(const RunConfig& config, int ranks) {
  return ranks / static_cast<int>(config.compute.sequence_ranks);
}

RunConfig for_ranks(RunConfig config, int ranks) {
  TrainConfig& train = config.train;
  int64_t& sharing = config.compute.sequence_ranks;
  if (ranks == 1) sharing = 1, config.compute.shard_optimizer = false;
  LONGSTRIDE_CHECK(ranks % sharing == 0,
                   "{} ranks are no whole number of groups of {} that share sequences; set "
                   "compute.sequence_ranks to a divisor of {}",
                   ranks, sharing, ranks);
  if (ranks == 1) return config;
  const int parts = batch_parts(config, ranks);
  const char* const who = sharing > 1 ? "groups of ranks" : "ranks";
  const int64_t share = train.batch / parts;
  if (share * parts != train.batch)
    fail("train.batch = {} sequences cannot be shared out to {} {} evenly; take {}{}", train.batch, parts,
         who, share > 0 ? fmt::format("{} or ", share * parts) : "", (share + 1) * parts);
  train.micro_batch = std::min(train.micro(), share);
  LONGSTRIDE_CHECK(share % train.micro() == 0,
                   "each of {} {} takes {} sequences a step, which train.micro_batch = {} does not divide",
                   parts, who, share, train.micro());
  return config;
}

MemoryPlan training_memory(const RunConfig& run, int ranks) {
  const RunConfig config = for_ranks(run, ranks);
  MemoryPlan most;
  int64_t offloaded = 0;
  for (const Stage& stage : stages_of(config)) {
    const MemoryPlan memory = memory_of_stage(stage.config, ranks);
    offloaded = std::max(offloaded, memory.offloaded);
    if (memory.total() > most.total()) most = memory;
  }
  most.offloaded = offloaded;
  return most;
}

MemoryVerdict check_training_memory(const RunConfig& run, int ranks, int here) {
  const RunConfig config = for_ranks(run, ranks);
  const Device device = parse_device(config.compute.device);
  int64_t micro = 0;
  for (const Stage& stage : stages_of(config)) micro = std::max(micro, stage.config.train.micro());
  LONGSTRIDE_CHECK(device.kind == DeviceKind::cpu || micro <= kMostGpuSequences,
                   "{} sequences at a time, a GPU takes up to {}; set train.micro_batch to a divisor of "
                   "train.batch = {} below that",
                   micro, kMostGpuSequences, config.train.batch);
  MemoryVerdict verdict;
  if (device.kind == DeviceKind::cpu) {
    verdict.before = resident_memory();
    verdict.plan = training_memory(config, ranks);
    const CpuMemory memory = cpu_memory();
    // The other ranks will hold what this one holds now, and take as much.
    const int64_t others = (here - 1) * verdict.before;
    const int64_t needed = here * (verdict.plan.total() + kLibraryMemory) + others;
    const bool fits = needed <= memory.most - verdict.before, now = needed <= memory.free;
    const int64_t room =
        ((fits ? memory.free : memory.most - verdict.before) - others) / here - kLibraryMemory;
    const std::string what =
        here > 1 ? fmt::format("training by {} ranks of this machine", here) : "training";
    verdict.warning =
        check_cpu_room(device, needed, what, now ? "" : advice_for(config, room, ranks, here), memory);
    return verdict;
  }
  verdict.before = backend(device).memory(device.index).free;
  verdict.plan = training_memory(config, ranks);
  // Advice is costly: every setting has to be planned.
  const int64_t room = gpu_room(device), needed = verdict.plan.total();
  if (needed > room) check_gpu_room(device, needed, "training", advice_for(config, room, ranks, 1));
  return verdict;
}

}  // namespace longstride
