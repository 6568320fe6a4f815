// What a rank after the first has to say, for people who look for the slow or the broken one: RUN/ranks/rank-N.log, a line with
// the time for its beginning, some steps and its end. It never fails: where this rank does not see the run's folder, or
// may not write there, nothing is written.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace longstride {

class RankLog {
 public:
  RankLog(std::string run_directory, int rank) : run_(std::move(run_directory)), rank_(rank) {}

  void write(const std::string& line);
  // One more step has been taken. Every `every` steps: how long they took on average, and the memory in use.
  void step(int64_t step, int64_t every);

 private:
  using Clock = std::chrono::steady_clock;
  std::string run_;
  int rank_;
  // A session that ends before its first step changes nothing in the run's folder.
  bool has_run_ = false;
  std::string waiting_;
  Clock::time_point since_ = Clock::now();
  int64_t steps_ = 0;
};

}  // namespace longstride
