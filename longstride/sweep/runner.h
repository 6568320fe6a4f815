// Trains the runs of a sweep: each a process of its own, as many at the same time as there are places for them.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "longstride/sweep/child.h"
#include "longstride/sweep/vary.h"

namespace longstride {

enum class SweepState { waiting, finished, stopped, failed };
const char* name_of(SweepState state);

struct SweepRow {
  SweepRun run;
  std::string path, log;  // its folder, and the file with what it says
  SweepState state = SweepState::waiting;
  std::string problem;  // why it failed
  std::string not_on;   // the GPU on which it failed by that GPU's fault, as it seems
  double best_bits = std::numeric_limits<double>::quiet_NaN(), seconds = 0;
  int64_t best_step = -1, parameters = 0;
};

struct SweepWork {
  // For each run that may go on at the same time, the GPU that it sees, as in CUDA_VISIBLE_DEVICES; "": what this
  // process sees.
  std::vector<std::string> places;
  std::function<std::vector<std::string>(const SweepRow&)> command;  // the words that train a run
  // Fills in what the run's folder tells. Whether it is finished.
  std::function<bool(SweepRow&)> look_at;
  // A run is over: finished, stopped or failed; or it was finished before.
  std::function<void(const SweepRow&, bool before)> over;
  // A run failed for a reason that the GPU seems to have (`row.problem`, `row.not_on`) and will be tried on another. `left`: no
  // more runs begin on this one.
  std::function<void(const SweepRow& row, bool left)> elsewhere;
  std::function<void()> ending;  // somebody wants the sweep to end
  std::function<void(const std::vector<const SweepRow*>&)>
      under_way;  // often, with the runs that are being trained
};

// Trains all runs that are not finished, in their order, until all are finished or have failed. A GPU on which two runs in a
// row failed by its fault gets no more; a run that fails on another one too takes the blame. Runs that no GPU takes have failed. Once an interrupt is
// requested (base/interrupt.h) no run begins any more, and the signal is passed on to those under way, which are awaited.
// Throws Error if a process cannot be started.
void train_sweep(std::vector<SweepRow>& rows, const SweepWork& work);

}  // namespace longstride
