#include "longstride/train/progress.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/rewritten_line.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"

namespace longstride {

namespace {

constexpr int kWidestBar = 40, kNarrowestBar = 8;
constexpr int kUsualWidth = 80;

double fraction_of(const ProgressState& state) {
  return state.total > 0
             ? std::clamp(static_cast<double>(state.step) / static_cast<double>(state.total), 0.0, 1.0)
             : 0.0;
}

// A bar of `columns` columns between two edges.
std::string render_bar(double fraction, int columns, bool unicode) {
  constexpr std::array eighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  std::string bar;
  const int filled = static_cast<int>(fraction * columns * (unicode ? 8 : 1));
  const int whole = unicode ? filled / 8 : filled;
  for (int i = 0; i < whole; ++i) bar += unicode ? "█" : "#";
  const bool partial = unicode && filled % 8 != 0;
  if (partial) bar += eighths[static_cast<size_t>(filled % 8)];
  bar.append(static_cast<size_t>(columns - whole - partial), unicode ? ' ' : '.');
  return unicode ? "▕" + bar + "▏" : "[" + bar + "]";
}

std::string time_left(const ProgressState& state) {
  return std::isfinite(state.seconds_left) ? human_seconds(state.seconds_left) : "?";
}

int standard_error_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsualWidth;
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

bool locale_is_utf8() {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') continue;
    std::string name(value);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name.find("utf-8") != std::string::npos || name.find("utf8") != std::string::npos;
  }
  return false;
}

ProgressOptions progress_on_standard_error() {
  const char* terminal = std::getenv("TERM");
  ProgressOptions options;
  options.json = log_format() == LogFormat::json;
  options.terminal =
      !options.json && isatty(STDERR_FILENO) && terminal != nullptr && std::string_view(terminal) != "dumb";
  options.unicode = locale_is_utf8();
  options.write = write_to_standard_error;
  options.width = standard_error_width;
  options.now = monotonic_seconds;
  return options;
}

std::string render_progress_bar(const ProgressState& state, int width, bool unicode) {
  const double fraction = fraction_of(state);
  const std::string percent = fmt::format("{:3.0f}%", std::floor(fraction * 100));
  const std::string step = fmt::format("{}/{}", state.step, state.total);
  const std::string bits = fmt::format("{:.4f} bits", state.bits);
  const std::string left = "ETA " + time_left(state);
  const std::string speed = human_count(state.tokens_per_second) + " tok/s";
  const std::string memory = human_bytes(state.memory_bytes);

  // From the full line to the shortest.
  struct Layout {
    bool bar;
    std::vector<std::string> parts;
  };
  const std::array layouts{Layout{true, {step, bits, left, speed, memory}},
                           Layout{true, {step, bits, left, speed}},
                           Layout{true, {step, bits, left}},
                           Layout{false, {step, bits, left}},
                           Layout{false, {step, bits}},
                           Layout{false, {step}}};
  for (const auto& [bar, parts] : layouts) {
    std::string tail;
    for (const std::string& part : parts) tail += "  " + part;
    const int text_columns = static_cast<int>(percent.size() + tail.size());
    if (!bar && text_columns <= width) return percent + tail;
    const int bar_columns = std::min(kWidestBar, width - text_columns - 3);  // a space and two edges
    if (bar && bar_columns >= kNarrowestBar)
      return percent + " " + render_bar(fraction, bar_columns, unicode) + tail;
  }
  return percent.substr(0, static_cast<size_t>(std::max(0, width)));
}

std::string render_progress_line(const ProgressState& state) {
  return fmt::format("step {}/{} ({:.1f}%)  {:.4f} bits  {} tokens/s  ETA {}  {}", state.step, state.total,
                     fraction_of(state) * 100, state.bits, human_count(state.tokens_per_second),
                     time_left(state), human_bytes(state.memory_bytes));
}

std::string render_progress_event(const ProgressState& state) {
  // The library writes numbers that are not finite as null.
  const nlohmann::ordered_json event{{"event", "progress"},
                                     {"step", state.step},
                                     {"steps", state.total},
                                     {"train_bits", state.bits},
                                     {"bytes_per_second", state.tokens_per_second},
                                     {"seconds_left", state.seconds_left},
                                     {"memory", state.memory_bytes}};
  return event.dump();
}

ProgressLine::ProgressLine(ProgressOptions options) : options_(std::move(options)) {}

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::update(int64_t step, int64_t total, double bits, double tokens_per_second,
                          double memory_bytes) {
  const double now = options_.now();
  if (!started_) first_step_ = step, first_time_ = now;
  const int64_t done = step - first_step_;
  const double seconds_a_step =
      done > 0 ? (now - first_time_) / static_cast<double>(done) : std::numeric_limits<double>::quiet_NaN();
  state_ = {step,
            total,
            bits,
            tokens_per_second,
            seconds_a_step * static_cast<double>(std::max<int64_t>(0, total - step)),
            memory_bytes};
  shown_ = false;
  const double least = options_.terminal ? options_.redraw_seconds : options_.line_seconds;
  if (started_ && now - drawn_time_ < least) return;
  started_ = true;
  drawn_time_ = now;
  draw();
}

void ProgressLine::draw() {
  shown_ = true;
  if (options_.json) return options_.write(render_progress_event(state_) + "\n");
  if (!options_.terminal) return options_.write(render_progress_line(state_) + "\n");
  // The last column stays free, because some terminals begin a new line once it is written.
  options_.write(rewritten_line(render_progress_bar(state_, options_.width() - 1, options_.unicode)));
  line_open_ = true;
}

void ProgressLine::note(std::string_view text) {
  if (options_.json) return options_.write(as_event(text) + "\n");
  if (!line_open_) return options_.write(fmt::format("{}\n", text));
  options_.write(fmt::format("{}{}\n", kEraseLine, text));
  draw();
}

void ProgressLine::note(const ValidationNote& validation) {
  if (options_.json) {
    nlohmann::ordered_json event{{"event", "validation"},   {"step", validation.step},
                                 {"train_bits", nullptr},   {"validation_bits", validation.bits},
                                 {"best", validation.best}, {"last", validation.last}};
    if (validation.train_bits > 0) event["train_bits"] = validation.train_bits;
    return options_.write(event.dump() + "\n");
  }
  const std::string train =
      validation.train_bits > 0 ? fmt::format("  train {:.4f}", validation.train_bits) : "";
  note(fmt::format("step {:>7}{}  validation {:.4f} bits{}{}", validation.step, train, validation.bits,
                   validation.best ? "  (best)" : "", validation.last ? "  (last)" : ""));
}

void ProgressLine::finish() {
  if (started_ && (!shown_ || line_open_)) draw();  // once more, if the terminal has wrapped it
  if (line_open_) options_.write("\n");
  line_open_ = started_ = false;
}

}  // namespace longstride
