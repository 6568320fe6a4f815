// One line on standard error that shows progress. If standard error is not a terminal, nothing; where messages are JSON,
// an object every ten seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace longstride::cli {

class StatusLine {
 public:
  // `action` begins the line, as in "evaluating"; with `quiet` there is no line; `unit` is what is counted.
  explicit StatusLine(std::string action, bool quiet = false, std::string unit = "bytes");
  ~StatusLine() { clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  // `done` of `total`, where `before` of them were done before the line was made. Cheap; redraws a few times
  // a second.
  void update(int64_t done, int64_t total, int64_t before = 0);
  // Shows `what` while nothing can be counted. Counting starts again afterwards.
  void say(const std::string& what);
  // Removes the line.
  void clear();
  bool active() const { return active_; }  // whether somebody can see it
  // Since counting began.
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  void draw(const std::string& text);
  bool due() const;
  std::string action_, unit_;
  bool active_ = false, json_ = false, drawn_ = false;
  Clock::time_point begin_ = Clock::now(), last_ = {};
};

}  // namespace longstride::cli
