// What a run's folder tells of it, for tables and reports. Broken and half-written runs are shown as such.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "longstride/report/metrics_reader.h"
#include "longstride/run/config.h"

namespace longstride {

enum class RunProgress {
  training,    // a process trains it now
  finished,    // its schedule is over
  stopped,     // it has checkpoints to go on from
  begun,       // no checkpoint yet
  stripped,    // its weights are there, but nothing to go on from
  unreadable,  // its configuration cannot be read
};
std::string name_of(RunProgress progress);

// Seconds since 1970 as 2026-11-28 21:30:15 UTC.
std::string as_date(double time);

// A command that trained the run.
struct RunCommand {
  std::string time;    // as 2026-11-28 21:30:15 UTC
  std::string folder;  // in which it was given
  std::vector<std::string> words;
};

struct RunSample {
  int64_t step = 0;
  std::string path;
};

struct RunView {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  std::string path;
  std::string name;  // the last part of the path
  RunProgress progress = RunProgress::unreadable;
  std::optional<RunConfig> config;
  int64_t parameters = 0;
  double flops_per_byte = 0;  // of training, over all stages
  int64_t train_bytes = 0;    // in the training part; 0: not known
  // NaN and -1 stand for what is not known.
  double best_bits = kUnknown, train_bits = kUnknown, part_done = kUnknown;
  int64_t best_step = -1, last_step = -1;
  double bytes = 0, seconds = 0;  // trained on and spent; 0: not known
  double updated = 0;             // last sign of life, seconds since 1970
  std::vector<RunCommand> commands;
  std::vector<RunSample> samples;    // by step
  std::vector<std::string> remarks;  // what is wrong, as lines for people
};

// Looks at the folder `path` and, for the curves, at `metrics`, which is refreshed. What is wrong becomes a
// remark. Throws Error only if there is no folder of this name.
RunView view_run(const std::string& path, MetricsReader& metrics);
// The same for a table: of long curves only the end is read, so `bytes` and `seconds` are those of the last
// checkpoint.
RunView view_run(const std::string& path);

// Whether a process trains the run in this folder, or the runs of this sweep. Where a file system has no locks, nobody
// seems to.
bool is_being_trained(const std::string& folder);

// The folders of runs at and below `folder`, sorted by name: all that hold a config.toml and a sign of
// training. Runs inside runs, hidden folders and links to folders are left out. Throws Error if there is no
// such folder.
std::vector<std::string> find_runs(const std::string& folder);

// The names of the fields that differ between these runs, with each run's value; "" if the run's
// configuration cannot be read.
struct FieldDifference {
  std::string key;
  std::vector<std::string> values;
};
std::vector<FieldDifference> differences_of(const std::vector<RunView>& runs);

// The value as one word of a POSIX shell.
std::string shell_word(const std::string& word);

}  // namespace longstride
