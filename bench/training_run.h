// A model in training on random bytes: 12 layers of width 512 with 8 heads over 4096 positions,
// `fixed:128,32`, one sequence a step, all else as a run has it without being told.
#pragma once

#include <memory>

#include "longstride/model/cost.h"
#include "longstride/train/trainer.h"

namespace longstride {

RunConfig training_config(DType product, bool recompute);

// Made for the present number of threads, with which its steps are to be taken.
std::unique_ptr<Trainer> make_trainer(const RunConfig& config);

// FLOPs of one step; what is computed again counts nothing.
double step_flops(const RunConfig& config);

// A checksum of the weights and of all else that training goes on from.
std::string state_of(const Trainer& trainer);

}  // namespace longstride
