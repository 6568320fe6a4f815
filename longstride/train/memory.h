// What training needs of its device, and settings that need less.
#pragma once

#include <optional>
#include <string>

#include "longstride/model/transformer.h"
#include "longstride/run/config.h"

namespace longstride {

// How `config` trains.
ComputePlan training_plan(const RunConfig& config);

// The same with as many sequences at a time as one of several ranks takes at most. Throws Error if the batch
// cannot be shared out evenly.
// Ranks that share sequences and are to keep activations keep what they received, and recompute the rest.
RunConfig for_ranks(RunConfig config, int ranks);
// Parts into which the batch is cut: so many ranks, or groups of those that share sequences.
int batch_parts(const RunConfig& config, int ranks);

// All that a Trainer allocates on its device, in the stage that needs most, as one of so many ranks.
MemoryPlan training_memory(const RunConfig& config, int ranks = 1);

// Settings of train.activations and train.micro_batch with which training takes no more than `room` bytes:
// the least change of activations, with it the largest micro-batch. Empty if none do. `room` is that of one of
// so many ranks.
std::optional<RunConfig> settings_that_fit(const RunConfig& config, int64_t room, int ranks = 1);

struct MemoryVerdict {
  MemoryPlan plan;
  int64_t before = 0;   // of the CPU in use, of a GPU free, when it was looked at
  std::string warning;  // of a CPU's memory that is not free now; else ""
};

// training_memory(config), before anything is taken. Throws Error, with settings of train.activations and
// train.micro_batch that would do, if the plan needs more than a GPU has free, or than a CPU could have at
// all, or if it takes more sequences at a time than a GPU does. `here`: ranks that share this machine's CPU.
MemoryVerdict check_training_memory(const RunConfig& config, int ranks = 1, int here = 1);

}  // namespace longstride
