// The stages of a run: it may begin with short contexts or other patterns and ends with those of the model.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/run/config.h"

namespace longstride {

struct Stage {
  double from = 0;     // progress of the run, in [0, 1), at which the stage begins
  int64_t pieces = 1;  // sequences that each window of the model's context is cut into
  // The run's config with another context and pattern. It has `pieces` times as many sequences in a step and
  // at a time, so that the bytes of a step stay the same. Shapes of weights are those of the run's model.
  RunConfig config;
};

// The stages in order. The last has the model's context and pattern; without schedules it is the only one.
// Throws Error naming the field for a schedule that cannot be read or does not fit the model.
std::vector<Stage> stages_of(const RunConfig& config);

// The index of the stage at this progress of the run.
int64_t stage_at(const std::vector<Stage>& stages, double progress);

}  // namespace longstride
