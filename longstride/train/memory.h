// What training needs of its device, and settings that need less.
#pragma once

#include "longstride/model/transformer.h"
#include "longstride/run/config.h"

namespace longstride {

// How `config` trains.
ComputePlan training_plan(const RunConfig& config);

// All that a Trainer allocates on its device.
MemoryPlan training_memory(const RunConfig& config);

// Returns training_memory(config). On a GPU: throws Error, with settings of train.activations and
// train.micro_batch that would do, if the plan needs more than is free or takes more sequences at a time than
// a GPU does.
MemoryPlan check_training_memory(const RunConfig& config);

}  // namespace longstride
