// One line on standard error that tells how far a command is; nothing where standard error is no terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace longstride::cli {

class StatusLine {
 public:
  // `action` begins the line, as in "evaluating"; `quiet` keeps it from appearing.
  explicit StatusLine(std::string action, bool quiet = false);
  ~StatusLine() { clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  // `done` of `total` bytes. Cheap; redraws a few times a second.
  void update(int64_t done, int64_t total);
  // Takes the line away.
  void clear();
  // Since the line was made.
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  std::string action_;
  bool active_ = false, drawn_ = false;
  Clock::time_point begin_ = Clock::now(), last_ = {};
};

}  // namespace longstride::cli
