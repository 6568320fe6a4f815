// Training steps of the paper's Enwik8 model on the GPU, over random bytes.
//
//   bench_gpu_step [--part NAME] [--json FILE] [--set KEY=VALUE] [--products cublas|own]
//
// --set changes the config, as that of longstride does, for every case; --products says which kernels serve
// Newton-Schulz.
//
// Parts, all of them if none is named:
//   rates    what the GPU can do: copies in its memory, products of bf16 matrices
//   step     tokens a second, and memory beside its plan, for patterns, batches and what is kept
//   profile  a step by op, each beside its floor
//   muon     the same with Muon
//   newton-schulz  Muon's update alone, and Newton-Schulz for each shape of matrices
//
// Steps are timed as runs take them, from a recorded graph, by the clock on the wall; the profile is of a
// step that is queued op by op, by the GPU's clock. An op's floor is, call by call, the longer of two times:
// its bytes at the copy rate, its FLOPs at the rate of the model's own products. The rates come from the same
// run.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/toml.h"
#include "longstride/device/backend.h"
#include "longstride/ops/cuda/muon_products.h"
#include "longstride/ops/profile.h"

#include "bench/gpu_muon.h"
#include "bench/gpu_rates.h"
#include "bench/measure.h"
#include "bench/training_run.h"

namespace longstride {
namespace {

using Json = nlohmann::json;

constexpr Device kGpu{DeviceKind::cuda, 0};
constexpr int kWarmUpSteps = 4, kTimedSteps = 10;
constexpr double kGiB = 1 << 30;

// ---- step ----

struct Case {
  const char* pattern;
  int64_t batch;
  const char* activations;
  bool average;
  const char* precision;
  const char* optimizer = "adam";
};

constexpr Case kCases[] = {
    {"fixed:128,32", 2, "keep", true, "bf16"},         {"window:128", 2, "keep", true, "bf16"},
    {"stride:128", 2, "keep", true, "bf16"},           {"block:128", 2, "keep", true, "bf16"},
    {"fixed:128,32", 4, "recompute", false, "bf16"},   {"fixed:128,32", 4, "recompute", true, "bf16"},
    {"fixed:128,32", 4, "offload", false, "bf16"},     {"fixed:128,32", 2, "keep", true, "f16"},
    {"fixed:128,32", 2, "keep", true, "bf16", "muon"},
};

std::vector<std::string> overrides;  // of --set

RunConfig config_of(const Case& c) {
  RunConfig config = enwik8_config();
  config.model.pattern = c.pattern;
  config.train.batch = c.batch;
  config.train.activations = c.activations;
  if (!c.average) config.train.average = 0;
  config.compute.precision = c.precision;
  config.train.optimizer = c.optimizer;
  const FieldList fields = config.fields();
  for (const std::string& assignment : overrides) apply_override(assignment, fields);
  config.check();
  return config;
}

// After steps that are not timed. Random bytes cost eight bits each, and nothing has been learnt of them yet.
std::unique_ptr<Trainer> warm_trainer(const RunConfig& config, int steps) {
  std::unique_ptr<Trainer> trainer = make_trainer(config);
  const double bits = trainer->step().bits;
  LONGSTRIDE_CHECK(bits > 7 && bits < 9,
                   "the first step's loss is {:.3f} bits a byte, random bytes must cost about 8", bits);
  for (int i = 1; i < steps; ++i) trainer->step();
  return trainer;
}

double median_step_seconds(Trainer& trainer) {
  std::vector<double> seconds;
  for (int i = 0; i < kTimedSteps; ++i) seconds.push_back(seconds_of([&] { trainer.step(); }));
  return median(seconds);
}

Json step(const Case& c, const GpuRates& rates) {
  const RunConfig config = config_of(c);
  const int64_t free_before = backend(kGpu).memory(kGpu.index).free;
  const std::unique_ptr<Trainer> trainer = warm_trainer(config, kWarmUpSteps);
  const double time = median_step_seconds(*trainer);
  const double tokens_per_second = static_cast<double>(c.batch * config.model.context) / time;
  const double utilisation = step_flops(config) / time / rates.large_products;
  const int64_t used = free_before - backend(kGpu).memory(kGpu.index).free,
                planned = trainer->memory().total();
  fmt::print("{:<13}{:>5}  {:<11}{:>8}{:>6}{:>6}{:>9.2f}{:>10.0f}{:>8.1f}%{:>9.2f}{:>9.2f}\n", c.pattern,
             c.batch, c.activations, c.average ? "yes" : "no", c.precision, c.optimizer, time * 1e3,
             tokens_per_second, 100 * utilisation, static_cast<double>(used) / kGiB,
             static_cast<double>(planned) / kGiB);
  return {{"pattern", c.pattern},
          {"batch", c.batch},
          {"activations", c.activations},
          {"average", c.average},
          {"precision", c.precision},
          {"optimizer", c.optimizer},
          {"ms", time * 1e3},
          {"tokens_per_second", tokens_per_second},
          {"utilisation", utilisation},
          {"memory_bytes", used},
          {"planned_bytes", planned},
          {"skipped_steps", trainer->state().skipped}};
}

Json steps(const GpuRates& rates) {
  fmt::print(
      "\nstep: 30 layers, width 512, 8 heads, n 12288; 'of GEMM': useful FLOPs, of the rate at 8192^3\n");
  fmt::print("{:<13}{:>5}  {:<11}{:>8}{:>6}{:>6}{:>9}{:>10}{:>9}{:>9}{:>9}\n", "pattern", "batch",
             "activations", "average", "dtype", "opt", "ms", "tokens/s", "of GEMM", "GiB", "planned");
  Json rows;
  for (const Case& c : kCases) rows.push_back(step(c, rates));
  return rows;
}

// ---- profile ----

struct OpRow {
  OpTime time;
  double floor = 0;  // seconds

  void add(const OpTime& more, double more_floor) {
    time.calls += more.calls, time.seconds += more.seconds, floor += more_floor;
    time.work.bytes += more.work.bytes, time.work.flops += more.work.flops;
  }
};

// Calls of unlike work have their own floors; each op's are added up.
std::vector<OpRow> rows_by_op(const GpuRates& rates) {
  std::vector<OpRow> rows;
  for (const OpTime& time : op_times(true)) {
    const double floor =
        std::max(static_cast<double>(time.work.bytes) / rates.copy, time.work.flops / rates.model_products);
    auto row = std::find_if(rows.begin(), rows.end(), [&](const OpRow& r) { return r.time.op == time.op; });
    if (row == rows.end()) row = rows.insert(rows.end(), OpRow{OpTime{time.op, 0, 0, {}}});
    row->add(time, floor);
  }
  std::sort(rows.begin(), rows.end(),
            [](const OpRow& a, const OpRow& b) { return a.time.seconds > b.time.seconds; });
  return rows;
}

// One step with the GPU's clock around each op. The GPU first has copies to make while the ops are queued, so
// that none waits for the CPU.
void profile_step(Trainer& trainer) {
  constexpr int64_t kBytes = int64_t{1} << 29;
  constexpr int kCopies = 64;
  const Buffer from(kGpu, kBytes), to(kGpu, kBytes);
  backend(kGpu).synchronize();
  profile_ops(true, kGpu.kind);
  for (int i = 0; i < kCopies; ++i) backend(kGpu).copy(to.data(), from.data(), kBytes);
  trainer.step();
  profile_ops(false);
}

Json profile(const Case& c, const GpuRates& rates) {
  const std::unique_ptr<Trainer> trainer = warm_trainer(config_of(c), 3);
  const double recorded_ms = 1e3 * median_step_seconds(*trainer);
  profile_step(*trainer);
  fmt::print("\nprofile: {}, batch {}, {}, {}, {}\n", c.pattern, c.batch, c.activations, c.precision,
             c.optimizer);
  fmt::print("{:<28}{:>7}{:>10}{:>10}{:>8}{:>10}{:>8}\n", "op", "calls", "ms", "floor ms", "ratio", "TFLOP/s",
             "TB/s");
  Json ops;
  const auto print = [&](const OpRow& row) {
    const auto& [op, calls, seconds, work] = row.time;
    const double ratio = row.floor > 0 ? seconds / row.floor : 0;
    const double tflops = work.flops / seconds * 1e-12;
    const double tb_s = static_cast<double>(work.bytes) / seconds * 1e-12;
    fmt::print("{:<28}{:>7}{:>10.3f}{:>10.3f}{:>8.2f}{:>10}{:>8.2f}\n", op, calls, seconds * 1e3,
               row.floor * 1e3, ratio, tflops > 0 ? fmt::format("{:.0f}", tflops) : "", tb_s);
    return Json{{"op", op},       {"calls", calls},   {"ms", seconds * 1e3}, {"floor_ms", row.floor * 1e3},
                {"ratio", ratio}, {"tflops", tflops}, {"tb_s", tb_s}};
  };
  OpRow sum{OpTime{"sum", 0, 0, {}}}, without{OpTime{"sum without attention", 0, 0, {}}};
  for (const OpRow& row : rows_by_op(rates)) {
    ops.push_back(print(row));
    sum.add(row.time, row.floor);
    if (!row.time.op.starts_with("attention_")) without.add(row.time, row.floor);
  }
  fmt::print("{:<28}{:>17.3f}\n", "recorded step", recorded_ms);
  Json result = {{"ops", ops}, {"recorded_step_ms", recorded_ms}};
  result["sum"] = print(sum);
  result["sum_without_attention"] = print(without);
  return result;
}

Json adam_profile(const GpuRates& rates) { return profile(kCases[0], rates); }

Json muon_profile(const GpuRates& rates) { return profile(*std::ranges::rbegin(kCases), rates); }

struct Part {
  const char* name;
  Json (*run)(const GpuRates&);
};
// The rates are there whatever runs.
constexpr Part kParts[] = {{"rates", nullptr},
                           {"step", steps},
                           {"profile", adam_profile},
                           {"muon", muon_profile},
                           {"newton-schulz", [](const GpuRates&) { return time_muon(); }}};

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  using namespace longstride;
  std::string only, json_path, products = "own";
  const Options options{{"--part", [&](const std::string& value) { only = value; }},
                        {"--json", [&](const std::string& value) { json_path = value; }},
                        {"--products", [&](const std::string& value) { products = value; }},
                        {"--set", [&](const std::string& value) { overrides.push_back(value); }}};
  setvbuf(stdout, nullptr, _IOLBF, 0);  // rows appear as they are measured, in files too
  return run_benchmark("bench_gpu_step", argc, argv, options, [&] {
    if (!only.empty() && std::ranges::none_of(kParts, [&](const Part& part) { return only == part.name; }))
      throw UsageError(
          fmt::format("unknown part {}; known: rates, step, profile, muon, newton-schulz", only));
    if (products != "own" && products != "cublas")
      throw UsageError(fmt::format("--products {}: must be cublas or own", products));
    parse_device("cuda");
    cuda::prefer_products(products == "own" ? cuda::MuonProducts::own : cuda::MuonProducts::cublas);
    backend(kGpu).use(kGpu.index);
    const GpuRates rates = measure_gpu_rates(kGpu, enwik8_config());
    fmt::print("{}; copies {:.2f} TB/s; products {:.0f} TFLOP/s at 8192^3, {:.0f} of the model\n",
               backend(kGpu).describe(kGpu.index), rates.copy * 1e-12, rates.large_products * 1e-12,
               rates.model_products * 1e-12);
    Json json = {{"gpu", backend(kGpu).describe(kGpu.index)},
                 {"products", products},
                 {"rates",
                  {{"copy_tb_s", rates.copy * 1e-12},
                   {"product_8192_tflops", rates.large_products * 1e-12},
                   {"model_product_tflops", rates.model_products * 1e-12}}}};
    write_json(json_path, json);
    for (const Part& part : kParts) {
      if (part.run == nullptr || (!only.empty() && only != part.name)) continue;
      json[part.name] = part.run(rates);
      write_json(json_path, json);  // after each part, so that what was measured stays
    }
  });
}
