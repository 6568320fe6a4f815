// Shows and writes samples: text as it comes, pictures as a grid that fills, sound as WAV files.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "longstride/sample/generate.h"

#include "cli/sample_task.h"
#include "cli/terminal_text.h"

namespace longstride::cli {

// Text on standard output, one sample after the other. The first unfinished sample appears as it comes. On a
// terminal it is made printable; elsewhere the bytes go out as they are.
class TextOutput {
 public:
  TextOutput(int64_t count, bool enabled);
  bool live() const { return enabled_ && terminal_; }
  void follow(const Generator& generator);
  // Ends the line of a sample that will not be finished.
  void stop();
  int64_t finished() const { return sample_; }

 private:
  void begin();
  void show(std::span<const uint8_t> bytes);
  void put(std::string_view text);
  void flush();

  int64_t count_;
  bool enabled_, terminal_;
  int64_t sample_ = 0, shown_ = 0;  // the sample that is shown, and how much of it
  bool begun_ = false;
  TerminalText text_;
};

class SampleOutput {
 public:
  SampleOutput(SampleTask& task, bool json);

  // Whether text is running over a terminal, so that other lines would be in the way.
  bool live() const { return text_.live(); }
  // Shows what has come since the last call. A grid is written again every few seconds.
  void follow(const Generator& generator);
  // Whether files were written since the last call of this; they are listed in job.session.written.
  bool take_written() { return std::exchange(written_, false); }
  // Writes the files, also of unfinished samples, and says so on standard error. Returns the files.
  std::vector<std::string> finish(const Generator& generator);

 private:
  using Clock = std::chrono::steady_clock;
  template <class Write>
  void write_file(const std::string& path, Write&& write);
  void write_grid(const Generator& generator);
  std::vector<std::string> write_files(const Generator& generator);

  const SampleTask& task_;
  SampleJob& job_;
  bool direct_;  // to a pipe or the like: written once, at the end
  TextOutput text_;
  bool written_ = false;
  Clock::time_point last_grid_ = Clock::now();
  double grid_seconds_ = 0;  // the time that writing the last one took
};

}  // namespace longstride::cli
