// How attention's time grows with the length of the sequence, and how fast it computes.
//
//   bench_attention_scaling [--largest N] [--threads N] [--repeats N] [--json FILE]
//
// One sequence, 8 heads of width 64, f32. For each pattern and n from 1024 up, l near sqrt(n): times of the
// forward and of the backward alone, useful arithmetic (4 D operations an allowed pair forward, 10 D
// backward; masked pairs count nothing), and the slope of log time over log n, which is 1.5 for a pattern of
// sqrt(n) keys a query. Then rates at n = 12,288, the length of the paper's runs. Results are compared with
// the reference at a small n before anything is timed.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/text.h"

#include "bench/attention_problem.h"
#include "bench/measure.h"

namespace longstride {
namespace {

constexpr int64_t kHeads = AttentionProblem::kHeads, kWidth = AttentionProblem::kWidth;

struct Times {
  int64_t n, l, pairs;       // pairs over all heads
  double forward, backward;  // seconds
  double forward_gflops() const { return gflops(4.0 * kWidth * pairs, forward); }
  double backward_gflops() const { return gflops(10.0 * kWidth * pairs, backward); }
};

// The fastest of `repeats` runs: on a shared machine all others measure the neighbours.
Times measure(const std::string& pattern, int64_t n, int64_t l, int repeats) {
  const PlannedAttention attention(pattern, n);
  const AttentionProblem problem(n, DType::f32);
  Times times{n, l, attention.pairs(), INFINITY, INFINITY};
  for (int repeat = 0; repeat <= repeats; ++repeat) {
    const double forward = seconds_of([&] { attention.forward(problem); });
    const double backward = seconds_of([&] { attention.backward(problem); });
    if (repeat == 0) continue;  // warms up
    times.forward = std::min(times.forward, forward);
    times.backward = std::min(times.backward, backward);
  }
  return times;
}

// Least squares on logarithms.
double slope(const std::vector<Times>& rows, double Times::*time) {
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (const Times& row : rows) {
    const double x = std::log(row.n), y = std::log(row.*time);
    sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  const double count = static_cast<double>(rows.size());
  return (count * sxy - sx * sy) / (count * sxx - sx * sx);
}

nlohmann::json report(const std::string& pattern, const Times& t) {
  fmt::print("{:<16}{:>8}{:>6}{:>14}{:>11.2f}{:>11.2f}{:>9.1f}{:>9.1f}\n", pattern, t.n, t.l, t.pairs,
             t.forward * 1e3, t.backward * 1e3, t.forward_gflops(), t.backward_gflops());
  return {{"pattern", pattern},
          {"n", t.n},
          {"l", t.l},
          {"pairs", t.pairs},
          {"forward_ms", t.forward * 1e3},
          {"backward_ms", t.backward * 1e3},
          {"forward_gflops", t.forward_gflops()},
          {"backward_gflops", t.backward_gflops()}};
}

void run(int64_t largest, int repeats, const std::string& json_path) {
  struct Family {
    const char* name;
    std::function<std::string(int64_t)> pattern;
  };
  const std::vector<Family> families = {
      {"strided:l", [](int64_t l) { return fmt::format("strided:{}", l); }},
      {"fixed:l,16", [](int64_t l) { return fmt::format("fixed:{},16", l); }},
      {"window:l", [](int64_t l) { return fmt::format("window:{}", l); }},
  };
  nlohmann::json json = {
      {"cpu", describe_cpu()}, {"threads", threads()}, {"heads", kHeads}, {"width", kWidth}};
  fmt::print("{}, {} threads; 1 sequence, {} heads of width {}, f32\n", describe_cpu(), threads(), kHeads,
             kWidth);
  fmt::print("{:<16}{:>8}{:>6}{:>14}{:>11}{:>11}{:>9}{:>9}\n", "pattern", "n", "l", "pairs", "fwd ms",
             "bwd ms", "GFLOP/s", "bwd");
  for (const Family& family : families) {
    check_attention(family.pattern(16), DType::f32);
    std::vector<Times> rows;
    for (int64_t n = 1024, l = 32; n <= largest; n *= 2) {
      l = int64_t{1} << std::lround(std::log2(n) / 2 + 1e-9);
      rows.push_back(measure(family.pattern(l), n, l, repeats));
      json["scaling"].push_back(report(family.pattern(l), rows.back()));
    }
    if (rows.size() < 2) continue;
    const double forward = slope(rows, &Times::forward), backward = slope(rows, &Times::backward);
    fmt::print("{}: time grows as n^{:.2f} forward, n^{:.2f} backward\n", family.name, forward, backward);
    json["slopes"].push_back({{"pattern", family.name}, {"forward", forward}, {"backward", backward}});
  }
  for (const char* pattern : {"fixed:128,32", "window:128", "stride:128", "strided:128"})
    json["rates"].push_back(report(pattern, measure(pattern, 12288, 128, repeats)));
  write_json(json_path, json);
}

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  using namespace longstride;
  int64_t largest = 65536;
  int repeats = 5;
  std::string json_path;
  const Options options = {
      {"--largest", [&](const std::string& value) { largest = parse_integer(value, "--largest"); }},
      {"--threads",
       [](const std::string& value) { set_threads(static_cast<int>(parse_integer(value, "--threads"))); }},
      {"--repeats",
       [&](const std::string& value) { repeats = static_cast<int>(parse_integer(value, "--repeats")); }},
      {"--json", [&](const std::string& value) { json_path = value; }},
  };
  return run_benchmark("bench_attention_scaling", argc, argv, options,
                       [&] { run(largest, repeats, json_path); });
}
