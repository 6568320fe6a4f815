// The learning rate over a run.
#pragma once

#include "longstride/run/config.h"

namespace longstride {

// Rate of step `step` (from 1) of `total`: linear warm-up, then constant or cosine to final_rate (paper:
// section 6). `progress` in [0, 1] is the part of the run that is over, by steps or by time, whichever is
// further.
double learning_rate(const TrainConfig& config, int64_t step, int64_t total, double progress);

}  // namespace longstride
