// The learning rate over a run.
#pragma once

#include "longstride/run/config.h"

namespace longstride {

// Steps of a run whose training part has so many windows of the model's context. Throws Error for more than can be.
int64_t total_steps(const TrainConfig& config, int64_t windows);

// Steps of the warm-up in a run of `total` steps.
int64_t warmup_steps(const TrainConfig& config, int64_t total);

// Rate of step `step` (from 1) of `total`: linear warm-up, then constant, cosine or linear to final_rate
// (paper: section 6). `progress` in [0, 1] is the part of the run that is over, by steps or by time,
// whichever is further. `warmup_end` is the progress when the warm-up ends; with schedule 2 the decay begins
// there.
double learning_rate(const TrainConfig& config, int64_t step, int64_t total, double progress,
                     double warmup_end);
// The same curve, with the peak of Muon's rate.
double muon_rate(const TrainConfig& config, int64_t step, int64_t total, double progress, double warmup_end);

}  // namespace longstride
