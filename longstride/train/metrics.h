// The curves of a run: RUN/metrics.jsonl, one JSON object per line, and the same numbers for TensorBoard.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "longstride/train/event_file.h"

namespace longstride {

class MetricsLog {
 public:
  // Appends to the run's metrics. `resume_step` is the last step that is already done, -1 for a new run.
  // Lines of later steps are removed first, and so is a last line that a killed run left unfinished, so that
  // no step is logged twice. With `validates_again` the validation at resume_step is removed too. Throws
  // Error for the system's errors.
  MetricsLog(const std::string& run_directory, int64_t resume_step, bool validates_again = false);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // Writes one line, {"step": .., "time": seconds since 1970, name: value, ...}, with null for numbers that
  // are not finite, and hands it to the system before it returns. Throws Error for the names "step" and
  // "time", for a name that repeats or is no UTF-8, and for the system's errors.
  void log(int64_t step, const Scalars& scalars);

  // Brings all lines to the disk, so that no power cut loses them. Throws Error for the system's errors.
  void bring_to_disk();

  const std::string& path() const { return path_; }
  const std::string& event_path() const { return events_->path(); }

 private:
  std::string path_;
  int descriptor_ = -1;
  std::unique_ptr<EventFile> events_;
};

}  // namespace longstride
