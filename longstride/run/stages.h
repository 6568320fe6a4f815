// The stages of a run: it may begin with short contexts or other patterns and ends with those of the model.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/run/config.h"

namespace longstride {

struct Stage {
  double from = 0;     // progress of the run, in [0, 1), at which the stage begins
  int64_t pieces = 1;  // sequences that each window of the model's context is cut into
  // As the run's, but for the context, the pattern and the sequences a step and at a time: bytes a step stay
  // the same. Shapes of weights are those of the run's model.
  RunConfig config;
};

// One without schedules. In order; the last has the model's context and pattern. Throws Error naming the
// field for a schedule that cannot be read or does not fit the model.
std::vector<Stage> stages_of(const RunConfig& config);

// Index of the stage that a run is in.
int64_t stage_at(const std::vector<Stage>& stages, double progress);

}  // namespace longstride
