// The curves of a run: RUN/metrics.jsonl, one JSON object a line, and the same numbers for TensorBoard.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "longstride/train/event_file.h"

namespace longstride {

class MetricsLog {
 public:
  // Appends to the run's metrics. `resume_step` is the last step that is already done, -1 for a new run:
  // lines of later steps, and a last line that a killed run left unfinished, are cut off first, so that no
  // curve runs twice. With `validates_again` so is what was measured of resume_step itself. Throws Error for
  // the system's errors.
  MetricsLog(const std::string& run_directory, int64_t resume_step, bool validates_again = false);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // One line, {"step": .., "time": seconds since 1970, name: value, ...}; numbers that are not finite stand
  // as null. The line has been handed to the system when this returns. Throws Error for the names "step" and
  // "time", for a name that repeats or is no UTF-8, and for the system's errors.
  void log(int64_t step, const Scalars& scalars);

  // After it no power cut loses a line that was logged. Throws Error for the system's errors.
  void bring_to_disk();

  const std::string& path() const { return path_; }
  const std::string& event_path() const { return events_->path(); }

 private:
  std::string path_;
  int descriptor_ = -1;
  std::unique_ptr<EventFile> events_;
};

}  // namespace longstride
