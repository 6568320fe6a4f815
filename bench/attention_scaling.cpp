// How attention's time grows with the length of the sequence, and how fast it computes.
//
//   bench_attention_scaling [--largest N] [--threads N] [--repeats N] [--json FILE]
//
// One sequence, 8 heads of width 64, f32. For each pattern and n from 1024 up, l near sqrt(n): times of the
// forward and of the backward alone, useful arithmetic (4 D operations an allowed pair forward, 10 D
// backward; masked pairs count nothing), and the slope of log time over log n, which is 1.5 for a pattern of
// sqrt(n) keys a query. Then rates at n = 12,288, the length of the paper's runs. Results are compared with
// the reference at a small n before anything is timed.
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/rng.h"
#include "longstride/base/text.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/reference/attention.h"

namespace longstride {
namespace {

constexpr int64_t kHeads = 8, kWidth = 64;
constexpr float kScale = 0.125f;  // 1 / sqrt(kWidth)

// Tensors of one problem; q, k, v are columns of one array, as a model has them.
struct Problem {
  int64_t n;
  Buffer qkv, gradients, o, d_o, lse;
  AttentionTensors tensors;
  AttentionGradients grad;

  explicit Problem(int64_t n)
      : n(n),
        qkv({}, n * 3 * kHeads * kWidth * 4),
        gradients({}, qkv.bytes()),
        o({}, n * kHeads * kWidth * 4),
        d_o({}, o.bytes()),
        lse({}, n * kHeads * 4) {
    const int64_t width = kHeads * kWidth;
    fill(qkv, 1), fill(d_o, 2);
    const auto part = [&](const Buffer& buffer, int64_t i) {
      return Tensor(buffer.data(), DType::f32, {n, 3 * width}).columns(i * width, (i + 1) * width);
    };
    const auto shaped = [&](const Tensor& t) { return t.split_last(kHeads).split_first(1); };
    tensors = {shaped(part(qkv, 0)),
               shaped(part(qkv, 1)),
               shaped(part(qkv, 2)),
               Tensor(o.data(), DType::f32, {1, n, kHeads, kWidth}),
               Tensor(lse.data(), DType::f32, {1, kHeads, n}),
               kScale};
    grad = {Tensor(d_o.data(), DType::f32, {1, n, kHeads, kWidth}), shaped(part(gradients, 0)),
            shaped(part(gradients, 1)), shaped(part(gradients, 2))};
  }
  static void fill(const Buffer& buffer, uint32_t stream) {
    const RandomStream random{7, stream};
    float* data = static_cast<float*>(buffer.data());
    const int64_t blocks = buffer.bytes() / 16;
    for (int64_t i = 0; i < blocks; ++i) {
      const PhiloxBlock block = random.block(i);
      for (int j = 0; j < 4; ++j) data[4 * i + j] = static_cast<float>(block[j]) * 0x1p-31f - 1;
    }
  }
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Times {
  int64_t n, l, pairs;       // pairs over all heads
  double forward, backward;  // seconds
  double forward_gflops() const { return 4.0 * kWidth * pairs / forward * 1e-9; }
  double backward_gflops() const { return 10.0 * kWidth * pairs / backward * 1e-9; }
};

// The fastest of `repeats` runs: on a shared machine all others measure the neighbours.
Times measure(const std::string& pattern, int64_t n, int64_t l, int repeats) {
  const AttentionPlan plan = plan_attention({}, parse_schedule(pattern).layer(0), kHeads, n);
  const Problem problem(n);
  Arena scratch({}, attention_scratch_bytes({}, plan, 1, kHeads, kWidth, kWidth));
  const OpContext context{{}, &scratch};
  Times times{n, l, plan.pairs, INFINITY, INFINITY};
  for (int repeat = 0; repeat <= repeats; ++repeat) {
    const double forward = seconds_of([&] { attention_forward(context, plan, problem.tensors); });
    const double backward =
        seconds_of([&] { attention_backward(context, plan, problem.tensors, problem.grad); });
    if (repeat == 0) continue;  // warms up
    times.forward = std::min(times.forward, forward);
    times.backward = std::min(times.backward, backward);
  }
  return times;
}

// Throws Error if the result differs from the reference's in double precision.
void check_result(const std::string& pattern) {
  const int64_t n = 300;
  const LayerPattern layer = parse_schedule(pattern).layer(0);
  const AttentionPlan plan = plan_attention({}, layer, kHeads, n);
  const Problem problem(n);
  Arena scratch({}, attention_scratch_bytes({}, plan, 1, kHeads, kWidth, kWidth));
  attention_forward({{}, &scratch}, plan, problem.tensors);
  attention_backward({{}, &scratch}, plan, problem.tensors, problem.grad);

  std::vector<std::vector<double>> memory;
  const auto as_double = [&](const Tensor& t) {  // a contiguous copy
    const View<float, 4> from = t.view<float, 4>();
    std::vector<double>& to = memory.emplace_back();
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t d = 0; d < kWidth; ++d) to.push_back(from(0, i, h, d));
    return Tensor(to.data(), DType::f64, {1, n, kHeads, kWidth}).view<double, 4>();
  };
  const auto q = as_double(problem.tensors.q), k = as_double(problem.tensors.k),
             v = as_double(problem.tensors.v);
  const auto o = as_double(problem.tensors.o), d_o = as_double(problem.grad.d_o);  // o is overwritten
  const auto dq = as_double(problem.grad.dq), dk = as_double(problem.grad.dk),
             dv = as_double(problem.grad.dv);
  std::vector<double> lse(kHeads * n);
  const View<double, 3> lse_view = Tensor(lse.data(), DType::f64, {1, kHeads, n}).view<double, 3>();
  reference::attention_forward<double>(layer, kScale, q, k, v, o, lse_view);
  reference::attention_backward<double>(layer, kScale, q, k, v, o, lse_view, d_o, dq, dk, dv);
  const auto compare = [&](const char* name, const Tensor& ours, const View<double, 4>& truth) {
    const View<float, 4> view = ours.view<float, 4>();
    double worst = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t d = 0; d < kWidth; ++d)
          worst = std::max(worst, std::abs(view(0, i, h, d) - truth(0, i, h, d)));
    LONGSTRIDE_CHECK(worst < 1e-5, "{} of {} is wrong by {}: nothing was timed", name, pattern, worst);
  };
  compare("o", problem.tensors.o, o);
  compare("dq", problem.grad.dq, dq), compare("dk", problem.grad.dk, dk), compare("dv", problem.grad.dv, dv);
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

void run(int argc, char** argv) {
  int64_t largest = 65536, repeats = 5;
  std::string json_path;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) throw UsageError(fmt::format("{} needs a value", name));
    const std::string value = argv[i + 1];
    if (name == "--largest")
      largest = parse_integer(value, name);
    else if (name == "--threads")
      set_threads(static_cast<int>(parse_integer(value, name)));
    else if (name == "--repeats")
      repeats = parse_integer(value, name);
    else if (name == "--json")
      json_path = value;
    else
      throw UsageError(
          fmt::format("unknown option {}; known: --largest, --threads, --repeats, --json", name));
  }
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
    check_result(family.pattern(16));
    std::vector<Times> rows;
    for (int64_t n = 1024, l = 32; n <= largest; n *= 2) {
      l = int64_t{1} << std::lround(std::log2(n) / 2 + 1e-9);
      rows.push_back(measure(family.pattern(l), n, l, static_cast<int>(repeats)));
      json["scaling"].push_back(report(family.pattern(l), rows.back()));
    }
    if (rows.size() < 2) continue;
    const double forward = slope(rows, &Times::forward), backward = slope(rows, &Times::backward);
    fmt::print("{}: time grows as n^{:.2f} forward, n^{:.2f} backward\n", family.name, forward, backward);
    json["slopes"].push_back({{"pattern", family.name}, {"forward", forward}, {"backward", backward}});
  }
  for (const char* pattern : {"fixed:128,32", "window:128", "stride:128", "strided:128"})
    json["rates"].push_back(report(pattern, measure(pattern, 12288, 128, static_cast<int>(repeats))));
  if (json_path.empty()) return;
  std::ofstream file(json_path);
  file << json.dump(2) << '\n';
  LONGSTRIDE_CHECK(file.flush().good(), "cannot write {}: {}", json_path, last_system_error());
}

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  try {
    longstride::run(argc, argv);
  } catch (const longstride::UsageError& error) {
    fmt::print(stderr, "bench_attention_scaling: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_attention_scaling: {}\n", error.what());
    return 1;
  }
}
