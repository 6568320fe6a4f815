// How fast the CPU computes, each number beside its floor from the same run.
//
//   bench_cpu_speed [--part NAME] [--threads N] [--repeats N] [--memory-length N] [--optimizer NAME]
//       [--commit TEXT] [--json FILE]
//
// Parts, all of them if none is named:
//   memory     peak memory of attention, beside the bytes of its tensors
//   gemm       the products of a block's linears through oneDNN: their rate is "the GEMM rate"
//   attention  the rate over allowed pairs, beside the GEMM rate and beside one reading of its tensors
//   step       a training step, beside the GEMM rate, with one thread and with all
//   profile    the same step by op, with --optimizer muon that of Muon
//   repeat     two runs give the same bits
//
// A shared machine's speed wanders, so what is compared is timed in turns, and ratios are medians of the
// ratios of each turn. Attention is compared with the reference before anything is timed.
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/text.h"
#include "longstride/ops/profile.h"

#include "bench/attention_problem.h"
#include "bench/measure.h"
#include "bench/training_run.h"

namespace longstride {
namespace {

using Json = nlohmann::json;
using Values = std::vector<double>;

constexpr int64_t kLength = 12288;  // of the paper's runs

struct Settings {
  int repeats = 5;
  int64_t memory_length = 262144;
  std::string optimizer = "adam";  // of the profile
};

std::vector<DType> dtypes() {
  if (has_bf16_products()) return {DType::f32, DType::bf16};
  return {DType::f32};
}

// ---- memory ----

// Peak resident bytes of a process that does nothing but `work`. To be called before any thread exists: they
// do not live on in a forked process, and OpenMP would wait for them.
int64_t peak_memory_of(const std::function<void()>& work) {
  fflush(nullptr);
  const pid_t child = fork();
  LONGSTRIDE_CHECK(child >= 0, "cannot start a process: {}", last_system_error());
  if (child == 0) {
    try {
      work();
      _exit(0);
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      fflush(stderr);
      _exit(1);
    }
  }
  int status = 0;
  rusage usage{};
  LONGSTRIDE_CHECK(wait4(child, &status, 0, &usage) == child, "lost a process: {}", last_system_error());
  LONGSTRIDE_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                   "the process whose memory was to be measured ended with status {}", status);
  return int64_t{usage.ru_maxrss} * 1024;
}

Json memory(const Settings& settings) {
  const int64_t n = settings.memory_length;
  fmt::print("\nmemory: attention forward and backward, n {}, peak of the process over bytes of tensors\n",
             n);
  fmt::print("{:<14}{:>6}{:>14}{:>14}{:>8}\n", "pattern", "dtype", "tensors", "peak", "ratio");
  Json rows;
  for (const char* pattern : {"strided:512", "window:512", "fixed:512,32"}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const int64_t peak = peak_memory_of([&] {
        const AttentionProblem problem(n, dtype);
        const PlannedAttention attention(pattern, n);
        attention.forward(problem);
        attention.backward(problem);
      });
      const int64_t tensors = AttentionProblem(n, dtype, AttentionProblem::Values::zero).backward_bytes();
      const double ratio = static_cast<double>(peak) / static_cast<double>(tensors);
      fmt::print("{:<14}{:>6}{:>14}{:>14}{:>8.3f}\n", pattern, name_of(dtype),
                 human_bytes(static_cast<double>(tensors)), human_bytes(static_cast<double>(peak)), ratio);
      rows.push_back({{"pattern", pattern},
                      {"dtype", name_of(dtype)},
                      {"n", n},
                      {"tensor_bytes", tensors},
                      {"peak_bytes", peak},
                      {"ratio", ratio}});
    }
  }
  return rows;
}

// ---- gemm ----

Json gemm(const Settings& settings) {
  fmt::print("\ngemm: the linears of a block of width 512 over 4096 rows, GFLOP/s\n");
  Json rows;
  for (const DType dtype : dtypes()) {
    const BlockProducts block(dtype);
    std::vector<Values> seconds(block.products().size());
    Values total;
    for (int repeat = 0; repeat <= settings.repeats; ++repeat) {
      double sum = 0;
      for (size_t i = 0; i < seconds.size(); ++i) {
        const double time = block.products()[i].seconds();
        sum += time;
        if (repeat > 0) seconds[i].push_back(time);
      }
      if (repeat > 0) total.push_back(sum);
    }
    const auto report = [&](const std::string& name, double flops, const Values& times) {
      const double rate = gflops(flops, median(times));
      fmt::print("{:<28}{:>6}{:>9.2f} ms{:>10.1f}\n", name, name_of(dtype), median(times) * 1e3, rate);
      rows.push_back(
          {{"product", name}, {"dtype", name_of(dtype)}, {"ms", median(times) * 1e3}, {"gflops", rate}});
    };
    for (size_t i = 0; i < seconds.size(); ++i)
      report(block.products()[i].name, block.products()[i].flops(), seconds[i]);
    report("all", block.flops(), total);
  }
  return rows;
}

// ---- attention ----

Json attention(const Settings& settings) {
  fmt::print(
      "\nattention: n {}, 8 heads of width 64; 'of GEMM' and 'of memory' are parts of those floors' speeds\n",
      kLength);
  fmt::print("{:<14}{:>6}{:>10}{:>9}{:>10}{:>10}{:>10}{:>9}{:>10}\n", "pattern", "dtype", "", "ms", "GFLOP/s",
             "GEMM", "of GEMM", "GB/s", "of memory");
  Json rows;
  const MemoryRead memory;
  for (const DType dtype : dtypes()) {
    const BlockProducts block(dtype);
    const AttentionProblem problem(kLength, dtype);
    for (const char* pattern : {"fixed:128,32", "window:128", "stride:128", "strided:128"}) {
      check_attention(pattern, dtype);
      const PlannedAttention attention(pattern, kLength);
      struct Side {
        const char* name;
        double flops, bytes;
        Values seconds, of_gemm, of_memory;
      };
      Side sides[2] = {
          {"forward", attention.forward_flops(), static_cast<double>(problem.forward_bytes()), {}, {}, {}},
          {"backward",
           attention.backward_flops(),
           static_cast<double>(problem.backward_bytes()),
           {},
           {},
           {}}};
      Values gemm_seconds, read_speed, both;
      attention.forward(problem), attention.backward(problem);
      block.seconds();
      double gemm_before = block.seconds();
      for (int repeat = 0; repeat < settings.repeats; ++repeat) {
        double seconds[2], speed[2];
        for (int side = 0; side < 2; ++side) {
          speed[side] = memory.bytes_per_second();
          seconds[side] =
              seconds_of([&] { side == 0 ? attention.forward(problem) : attention.backward(problem); });
        }
        const double gemm_after = block.seconds();
        const double gemm_rate = 2 * block.flops() / (gemm_before + gemm_after);
        gemm_seconds.push_back(gemm_after);
        gemm_before = gemm_after;
        both.push_back(seconds[0] + seconds[1]);
        for (int i = 0; i < 2; ++i) {
          sides[i].seconds.push_back(seconds[i]);
          sides[i].of_gemm.push_back(sides[i].flops / seconds[i] / gemm_rate);
          sides[i].of_memory.push_back(sides[i].bytes / speed[i] / seconds[i]);
          read_speed.push_back(speed[i]);
        }
      }
      const double gemm_rate = gflops(block.flops(), median(gemm_seconds));
      Json row = {{"pattern", pattern},
                  {"dtype", name_of(dtype)},
                  {"n", kLength},
                  {"pairs", attention.pairs()},
                  {"gemm_gflops", gemm_rate},
                  {"read_gbs", median(read_speed) * 1e-9},
                  {"forward_backward_ms", median(both) * 1e3}};
      for (const Side& side : sides) {
        const double rate = gflops(side.flops, median(side.seconds));
        fmt::print("{:<14}{:>6}{:>10}{:>9.2f}{:>10.1f}{:>10.1f}{:>10.2f}{:>9.1f}{:>10.2f}\n", pattern,
                   name_of(dtype), side.name, median(side.seconds) * 1e3, rate, gemm_rate,
                   median(side.of_gemm), median(read_speed) * 1e-9, median(side.of_memory));
        row[side.name] = {{"ms", median(side.seconds) * 1e3},
                          {"gflops", rate},
                          {"of_gemm", median(side.of_gemm)},
                          {"of_memory", median(side.of_memory)}};
      }
      fmt::print("{:<14}{:>6}{:>10}{:>9.2f}\n", pattern, name_of(dtype), "both", median(both) * 1e3);
      rows.push_back(row);
    }
  }
  return rows;
}

// ---- step ----

// One thread and all of them, in turns, each with its own trainer.
Json step(const Settings& settings) {
  fmt::print("\nstep: 12 layers, width 512, 8 heads, n 4096, fixed:128,32, one sequence a step\n");
  fmt::print("{:<11}{:>6}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}\n", "activations", "dtype", "threads", "ms",
             "tokens/s", "GFLOP/s", "GEMM", "of GEMM", "scaling");
  std::vector<int> counts = {1};
  if (threads() > 1) counts.push_back(threads());
  const int all_threads = counts.back();
  Json rows;
  for (const DType dtype : dtypes()) {
    const BlockProducts block(dtype);
    for (const bool recompute : {false, true}) {
      const RunConfig config = training_config(dtype, recompute);
      const double flops = step_flops(config);
      struct Runner {
        int threads;
        std::unique_ptr<Trainer> trainer;
        Values seconds, gemm_seconds, of_gemm, scaling;
      };
      std::vector<Runner> runners;
      for (const int count : counts) {
        set_threads(count);
        runners.push_back({count, make_trainer(config), {}, {}, {}, {}});
        runners.back().trainer->step();
        block.seconds();
      }
      for (int repeat = 0; repeat < settings.repeats; ++repeat) {
        for (Runner& runner : runners) {
          set_threads(runner.threads);
          const double before = block.seconds();
          const double seconds = seconds_of([&] { runner.trainer->step(); });
          const double after = block.seconds();
          runner.seconds.push_back(seconds);
          runner.gemm_seconds.push_back((before + after) / 2);
          runner.of_gemm.push_back(flops / seconds / (2 * block.flops() / (before + after)));
          runner.scaling.push_back(runners[0].seconds.back() / seconds);
        }
      }
      for (const Runner& runner : runners) {
        const double seconds = median(runner.seconds);
        const double gemm_rate = gflops(block.flops(), median(runner.gemm_seconds));
        const double tokens_per_second = static_cast<double>(config.model.context) / seconds;
        fmt::print("{:<11}{:>6}{:>9}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.2f}{:>9.2f}\n",
                   config.train.activations, name_of(dtype), runner.threads, seconds * 1e3, tokens_per_second,
                   gflops(flops, seconds), gemm_rate, median(runner.of_gemm), median(runner.scaling));
        rows.push_back({{"activations", config.train.activations},
                        {"dtype", name_of(dtype)},
                        {"threads", runner.threads},
                        {"ms", seconds * 1e3},
                        {"tokens_per_second", tokens_per_second},
                        {"gflops", gflops(flops, seconds)},
                        {"gemm_gflops", gemm_rate},
                        {"of_gemm", median(runner.of_gemm)},
                        {"scaling", median(runner.scaling)}});
      }
    }
  }
  set_threads(all_threads);
  return rows;
}

// ---- profile ----

Json profile(const Settings& settings) {
  Json rows;
  for (const DType dtype : dtypes()) {
    for (const bool recompute : {false, true}) {
      RunConfig config = training_config(dtype, recompute);
      config.train.optimizer = settings.optimizer;
      config.check();
      const std::unique_ptr<Trainer> trainer = make_trainer(config);
      trainer->step();
      profile_ops(true);
      const double total = seconds_of([&] {
        for (int repeat = 0; repeat < settings.repeats; ++repeat) trainer->step();
      });
      profile_ops(false);
      std::vector<OpTime> times = op_times();
      OpTime rest{"all else", settings.repeats, total, {}};
      for (const OpTime& time : times) rest.seconds -= time.seconds;
      times.push_back(rest);

      fmt::print("\nprofile: {}, activations {}, {}, {:.1f} ms a step\n", name_of(dtype),
                 config.train.activations, settings.optimizer, total / settings.repeats * 1e3);
      fmt::print("{:<24}{:>7}{:>10}{:>8}{:>10}{:>8}\n", "op", "calls", "ms", "share", "GFLOP/s", "GB/s");
      for (const OpTime& time : times) {
        const double ms = time.seconds / settings.repeats * 1e3, share = time.seconds / total;
        const double rate = gflops(time.work.flops, time.seconds);
        const double speed = static_cast<double>(time.work.bytes) / time.seconds * 1e-9;
        const auto shown = [](double value) { return value > 0 ? fmt::format("{:.1f}", value) : ""; };
        fmt::print("{:<24}{:>7}{:>10.2f}{:>7.1f}%{:>10}{:>8}\n", time.op, time.calls / settings.repeats, ms,
                   100 * share, shown(rate), shown(speed));
        Json row = {{"op", time.op},
                    {"dtype", name_of(dtype)},
                    {"activations", config.train.activations},
                    {"optimizer", settings.optimizer},
                    {"calls", time.calls / settings.repeats},
                    {"ms", ms},
                    {"share", share}};
        if (rate > 0) row["gflops"] = rate;
        if (speed > 0) row["gbs"] = speed;
        rows.push_back(row);
      }
    }
  }
  return rows;
}

// ---- repeat ----

Json repeat(const Settings& settings) {
  fmt::print("\nrepeat: checksums of two runs with {} threads\n", threads());
  Json rows;
  const auto compare = [&](const std::string& what, DType dtype, const std::function<std::string()>& run) {
    const std::string first = run(), second = run();
    fmt::print("{:<42}{:>6}  {}  {}\n", what, name_of(dtype), first, first == second ? "same" : "DIFFERS");
    rows.push_back(
        {{"what", what}, {"dtype", name_of(dtype)}, {"checksum", first}, {"same", first == second}});
  };
  for (const DType dtype : dtypes()) {
    for (const char* pattern : {"fixed:128,32", "strided:128"})
      compare(fmt::format("attention {}, o dq dk dv", pattern), dtype, [&] {
        const AttentionProblem problem(kLength, dtype);
        const PlannedAttention attention(pattern, kLength);
        attention.forward(problem);
        attention.backward(problem);
        return problem.results();
      });
    for (const bool recompute : {false, true})
      compare(fmt::format("3 training steps, {}", recompute ? "recompute" : "keep"), dtype, [&] {
        const std::unique_ptr<Trainer> trainer = make_trainer(training_config(dtype, recompute));
        for (int i = 0; i < 3; ++i) trainer->step();
        return state_of(*trainer);
      });
  }
  return rows;
}

struct Part {
  const char* name;
  Json (*run)(const Settings&);
};
// memory comes first, see peak_memory_of.
constexpr Part kParts[] = {{"memory", memory}, {"gemm", gemm},       {"attention", attention},
                           {"step", step},     {"profile", profile}, {"repeat", repeat}};

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  using namespace longstride;
  Settings settings;
  std::string only, json_path, commit;
  const Options options = {
      {"--part", [&](const std::string& value) { only = value; }},
      {"--threads",
       [](const std::string& value) { set_threads(static_cast<int>(parse_integer(value, "--threads"))); }},
      {"--repeats",
       [&](const std::string& value) {
         settings.repeats = static_cast<int>(parse_integer(value, "--repeats"));
         if (settings.repeats < 1) throw UsageError("--repeats must be at least 1");
       }},
      {"--memory-length",
       [&](const std::string& value) { settings.memory_length = parse_integer(value, "--memory-length"); }},
      {"--optimizer", [&](const std::string& value) { settings.optimizer = value; }},
      {"--commit", [&](const std::string& value) { commit = value; }},
      {"--json", [&](const std::string& value) { json_path = value; }},
  };
  setvbuf(stdout, nullptr, _IOLBF, 0);  // rows appear as they are measured, in files too
  return run_benchmark("bench_cpu_speed", argc, argv, options, [&] {
    std::vector<Part> parts;
    std::string known;
    for (const Part& part : kParts) {
      if (only.empty() || only == part.name) parts.push_back(part);
      known += (known.empty() ? "" : ", ") + std::string(part.name);
    }
    if (parts.empty()) throw UsageError(fmt::format("unknown part {}; known: {}", only, known));
    nlohmann::json json = {{"cpu", describe_cpu()}, {"threads", threads()}, {"repeats", settings.repeats}};
    if (!commit.empty()) json["commit"] = commit;
    fmt::print("{}, {} threads, {} repeats\n", describe_cpu(), threads(), settings.repeats);
    for (const Part& part : parts) {
      json[part.name] = part.run(settings);
      write_json(json_path, json);  // after each part, so that what was measured stays
    }
  });
}
