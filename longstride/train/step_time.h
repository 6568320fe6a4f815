// How long a training step of a config takes on this machine: measured with steps of the model itself, or where those
// would take too long, of a model with fewer layers, sequences or positions, scaled up.
#pragma once

#include <cstdint>

#include "longstride/run/config.h"

namespace longstride {

struct StepTime {
  double seconds = 0;  // a step with all its micro-batches
  // Parts of `seconds`: attention alone, without the products around it, and the optimizer's update.
  double attention = 0, update = 0;
  // What was measured. The rest of the config is scaled from it.
  int64_t layers = 0, sequences = 0, context = 0;
  int64_t measured_at = 0;  // seconds since 1970

  bool operator==(const StepTime&) const = default;
};

// Trains the model of `config`, which is whole, on noise for about `seconds`, without a trace of it. Threads and
// instructions are those of this process. What is measured takes no more than `room` bytes of the device. Throws Error
// if nothing of the model fits into them.
//
// Layers cost the same each, or those of a cycle of patterns do; attention costs as many pairs of query and key as it
// has, the update as many weights, and all else as many tokens.
StepTime measure_step_time(const RunConfig& config, int64_t room, double seconds = 10);

// The same from the cache folder of data.cache, if this machine has measured it before, and kept there afterwards.
// `anew` measures again. Writes no cache where that cannot be: the time is what counts.
StepTime step_time(const RunConfig& config, int64_t room, bool anew);

}  // namespace longstride
