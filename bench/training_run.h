// Models in training on random bytes, for the CPU and for the GPU.
#pragma once

#include <memory>

#include "longstride/model/cost.h"
#include "longstride/train/trainer.h"

namespace longstride {

// 12 layers of width 512 with 8 heads over 4096 positions, `fixed:128,32`, one sequence a step on the CPU,
// all else as a run has it without being told.
RunConfig training_config(DType product, bool recompute);

// The paper's Enwik8 model as configs/enwik8.toml trains it: 30 layers of width 512 with 8 heads over 12,288
// positions, `fixed:128,32`, dropout 0.4, two sequences a step in bf16, activations kept, on the GPU.
RunConfig enwik8_config();

// Made for the present number of threads, with which its steps are to be taken.
std::unique_ptr<Trainer> make_trainer(const RunConfig& config);

// FLOPs of one step; what is computed again counts nothing.
double step_flops(const RunConfig& config);

// A checksum of the weights and of all else that training goes on from.
std::string state_of(const Trainer& trainer);

}  // namespace longstride
