// Texts that people and runs write: configurations, patterns, lines of metrics.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/pattern/pattern.h"
#include "longstride/report/metrics_reader.h"
#include "longstride/run/config.h"

#include "tests/fuzz/target.h"

namespace longstride::fuzz {

namespace {

std::vector<Bytes> config_seeds() {
  return {
      bytes_of(RunConfig().to_toml(false)),
      bytes_of("[model]\nlayers = 2\npattern = \"strided:8|window:4, block:2*3\"\n[data]\nsplit = [0.5, 0.5, "
               "0]\n"),
      bytes_of("model.context = 1_0\n[data]\npath = '''a\nb'''\nsplit = [ # a\n 0x10, 1e3, inf ]\n"),
      bytes_of(
          "[train]\nlearning_rate = 1e-3\ncontext_schedule = \"0.5:64\"\npattern_schedule = \"0:dense\"\n"),
      bytes_of("a = " + std::string(600, '[') + std::string(600, ']')),
      bytes_of("a." + std::string(1000, 'b') + " = {c = {d = 1979-05-27T07:32:00Z}}\n[[x]]\n")};
}

void run_config(std::span<const uint8_t> input) {
  RunConfig config;
  const bool taken =
      refused_or_done([&] { read_toml_text(std::string(text_of(input)), "config.toml", config.fields()); });
  if (!taken) return;
  const std::string text = config.to_toml(false);
  RunConfig again;
  promise(refused_or_done([&] { read_toml_text(text, "again", again.fields()); }),
          "a configuration that was read can be written and read again");
  promise(again.to_toml(false) == text, "and stays the same");
  refused_or_done([&] { config.check(); });
}

std::vector<Bytes> pattern_seeds() {
  std::vector<Bytes> seeds;
  for (const char* text : {"dense", "strided:128", "fixed:128,32", "spread-fixed:64,8", "window:64|stride:64",
                           "stride:128,window:128*3", "block:7+summary:7,2+prefix:3", "previous-row:32,3",
                           "dilated:8,4", "spread-summary:128,32", "window:64Ki+stride:1_000",
                           "window:1*64,dense|window:2", "block : 3 + dense"})
    seeds.push_back(bytes_of(text));
  return seeds;
}

void run_pattern(std::span<const uint8_t> input) {
  const std::string_view text = text_of(input);
  try {
    const Schedule schedule = parse_schedule(text);
    const std::string written = to_string(schedule);
    const Schedule again = parse_schedule(written);
    promise(again.cycle == schedule.cycle, "a pattern that is written means the same");
    promise(to_string(again) == written, "and is written in the same way");
    for (const LayerPattern& layer : schedule.cycle)
      for (const Pattern& pattern : layer.groups)
        for (const int64_t q : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{1} << 20}) {
          promise(!pattern.allows(q, q + 1), "nothing looks at what comes later");
          pattern.allows(q, 0), pattern.allows(q, q);
        }
  } catch (const PatternError& error) {
    promise(std::string_view(error.what()).find('\n') == std::string_view::npos, "one line");
    static_cast<void>(error.with_caret());
  }
}

std::vector<Bytes> metrics_seeds() {
  return {bytes_of(R"({"step": 10, "time": 1790000000.5, "train/bits": 2.5, "x": null})"),
          bytes_of(R"({"step":1e2,"a\u0062":-0.0,"b":1e999,"c":{"d":[1]},"e":"f"})"),
          bytes_of(R"({"step": 5, "validation/bits": 1.25})"
                   "\n"
                   R"({"step": 6, "train/bits": 1)"),
          bytes_of("{\"a\":" + std::string(2000, '[') + std::string(2000, ']') + "}")};
}

void run_metrics(std::span<const uint8_t> input) {
  std::vector<std::pair<std::string, double>> row;
  std::string_view rest = text_of(input);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (!parse_metrics_line(line, row)) continue;
    ThinCurve curve;
    for (const auto& [name, value] : row) curve.add(curve.count(), value);
    promise(std::ssize(curve.samples()) <= std::ssize(row), "a curve has no more samples than it was given");
  }
}

}  // namespace

const Target kConfigTarget{"config", config_seeds, run_config, 4096};
const Target kPatternTarget{"pattern", pattern_seeds, run_pattern, 256};
const Target kMetricsTarget{"metrics", metrics_seeds, run_metrics, 4096};

}  // namespace longstride::fuzz
