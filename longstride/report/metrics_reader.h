// Reads the curves of a run, RUN/metrics.jsonl, also while the run writes them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "longstride/report/thin_curve.h"

namespace longstride {

class MetricsReader {
 public:
  // With `tail` > 0 only about the last `tail` bytes of the file are read.
  explicit MetricsReader(std::string path, int64_t tail = 0) : path_(std::move(path)), tail_(tail) {}

  // Reads what the file has more than at the last call. A file that was replaced or has become shorter is
  // read again from its beginning. A missing file has no lines. Lines that are not an object with a step
  // are counted and left out. Throws Error if the file cannot be read.
  void refresh();

  const std::map<std::string, ThinCurve>& curves() const { return curves_; }
  // The curve of this name; an empty one if there is none.
  const ThinCurve& curve(const std::string& name) const;
  const ThinClock& clock() const { return clock_; }

  int64_t rows() const { return rows_; }
  int64_t last_step() const { return last_step_; }  // -1: none
  double last_time() const { return last_time_; }   // seconds since 1970; 0: none
  double bytes() const { return now_.bytes; }       // trained on
  double seconds() const { return now_.seconds; }   // spent training
  // What was left out, as lines for people: "line 7 is not whole ...".
  std::vector<std::string> remarks() const;

  // More names than this are left out.
  static constexpr size_t kMostCurves = 64;

 private:
  using Row = std::vector<std::pair<std::string, double>>;
  void take_line(std::string_view line);
  void take_row(const Row& row);
  void begin_again();

  std::string path_;
  int64_t tail_ = 0;
  uint64_t inode_ = 0;
  int64_t offset_ = 0;
  std::map<std::string, ThinCurve> curves_;
  ThinClock clock_;
  ClockSample now_;
  int64_t rows_ = 0, lines_ = 0, broken_ = 0, first_broken_ = 0, backward_ = 0, crowded_ = 0;
  int64_t last_step_ = -1;
  double last_time_ = 0, clock_time_ = 0;
  bool unfinished_ = false, skipping_ = false, seconds_known_ = true;
  Row row_;
};

// One line as names and numbers; a number that is not finite, and null, are NaN; other values are left out.
// False if the line is no object. Exposed for tests.
bool parse_metrics_line(std::string_view line, std::vector<std::pair<std::string, double>>& row);

}  // namespace longstride
