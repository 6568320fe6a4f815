// The line that shows the progress of training: on a terminal a bar that is redrawn, elsewhere a plain line
// now and then.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace longstride {

struct ProgressState {
  int64_t step = 0, total = 0;
  double bits = 0;  // loss in bits per byte
  double tokens_per_second = 0;
  double seconds_left = 0;  // not finite while unknown
  double memory_bytes = 0;
};

// The line for a terminal, at most `width` columns. Until it fits, parts are left out, the least important
// first: memory, speed, bar, time left, loss.
std::string render_progress_bar(const ProgressState& state, int width, bool unicode);
// The line for a log file.
std::string render_progress_line(const ProgressState& state);
// The line for a program: a JSON object with "event": "progress". What is not known is null.
std::string render_progress_event(const ProgressState& state);

// What a validation found.
struct ValidationNote {
  int64_t step = 0;
  double train_bits = 0;  // 0: not known
  double bits = 0;
  bool best = false, last = false;
};

struct ProgressOptions {
  bool terminal = false;                        // redraw one line instead of printing many
  bool json = false;                            // plain lines are JSON objects
  bool unicode = false;                         // fine bar of blocks instead of '#'
  double redraw_seconds = 0.2;                  // least time between two redraws
  double line_seconds = 10;                     // least time between two plain lines
  std::function<void(std::string_view)> write;  // where the text goes
  std::function<int()> width;                   // columns of the terminal at this moment
  std::function<double()> now;                  // seconds on a clock that never goes back
};

// The options for this process's standard error: redraws on a terminal that can, and uses the characters of
// the locale.
ProgressOptions progress_on_standard_error();

// True if LC_ALL, LC_CTYPE and LANG say that the locale uses UTF-8.
bool locale_is_utf8();

class ProgressLine {
 public:
  explicit ProgressLine(ProgressOptions options = progress_on_standard_error());
  // Calls finish() if nobody did.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Takes the state after `step` of `total` steps. Cheap: draws only when the last line is old enough.
  void update(int64_t step, int64_t total, double bits, double tokens_per_second, double memory_bytes);
  // Prints a full line, above the bar.
  void note(std::string_view text);
  void note(const ValidationNote& validation);
  // Shows the last state and ends the line.
  void finish();

 private:
  void draw();

  ProgressOptions options_;
  ProgressState state_;
  int64_t first_step_ = 0;
  double first_time_ = 0, drawn_time_ = 0;
  bool started_ = false, shown_ = false, line_open_ = false;
};

}  // namespace longstride
