// `longstride eval`: bits per byte of a run's model, as one number, by minimum context, and by position.
#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/text.h"
#include "longstride/data/corpus.h"
#include "longstride/eval/evaluate.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"

#include "cli/commands.h"
#include "cli/entropy_file.h"
#include "cli/load_run.h"
#include "cli/memory_note.h"
#include "cli/output_file.h"
#include "cli/standard_streams.h"
#include "cli/status_line.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace {

// Rows of activations in a batch, if the user does not choose: enough to keep products busy.
constexpr int64_t kBatchRows = 8192;

struct Material {
  Segment segment;
  std::string name;  // for people
  int64_t record_bytes() const { return segment.corpus->record_bytes(); }
};

Material open_material(const EvalOptions& options, const RunConfig& config) {
  if (!options.file.empty()) {
    if (!options.split.empty())
      throw UsageError("--split is of the run's own data, and --file takes its place; give one of them");
    if (options.data_changed)
      throw UsageError(
          "--data-changed is about the run's own data, and --file takes their place; leave it out");
    auto corpus = std::make_shared<const Corpus>(open_corpus(config.data, options.file));
    return {Segment{corpus, 0, corpus->size()}, corpus->description()};
  }
  const std::string split = options.split.empty() ? "validation" : options.split;
  const Splits splits = open_splits_of(options.run, config, options.overrides, split, options.data_changed);
  Segment segment;
  if (split == "train")
    segment = splits.train;
  else if (split == "validation")
    segment = splits.validation;
  else if (split == "test")
    segment = splits.test;
  else
    throw UsageError(fmt::format("--split {}: the parts are train, validation and test", split));
  LONGSTRIDE_CHECK(segment.size() > 0,
                   "the run's data has no {} part (data.split = [{}]); choose another --split or a --file",
                   split, fmt::join(config.data.split, ", "));
  return {segment, fmt::format("{} part of {}", split, segment.corpus->description())};
}

std::vector<std::string> files_read(const EvalOptions& options, const RunConfig& config) {
  return {options.run, options.file, config.data.path, config.data.validation_path, config.data.test_path};
}

// Checks what can be checked before the model is loaded.
void check_request(const EvalOptions& options, const RunConfig& config, const Material& material) {
  const int64_t context = config.model.context;
  for (const int64_t min_context : options.min_context)
    LONGSTRIDE_CHECK(min_context >= 0 && min_context < context,
                     "--min-context {}: the model's context is {}, so 0 to {} are possible", min_context,
                     context, context - 1);
  if (!options.curve.empty() && options.min_context.size() > 1)
    throw UsageError("--curve writes one curve: give one --min-context");
  if (!options.curve.empty()) {
    spare_what_is_read(options.curve, "--curve", files_read(options, config));
    prepare_output(options.curve, "--curve");
  }
  if (!options.entropy.empty() && options.min_context.size() > 1)
    throw UsageError("--entropy writes the bits of one reading: give one --min-context");
  if (!options.entropy.empty()) {
    spare_what_is_read(options.entropy, "--entropy", files_read(options, config));
    check_entropy_file(options.entropy);
    if (same_file(options.entropy, options.curve))
      throw UsageError(fmt::format("--entropy {}: that is the file of --curve", options.entropy));
  }
  if (material.record_bytes() == 0) return;
  const ImageShape& shape = material.segment.corpus->shape();
  LONGSTRIDE_CHECK(material.record_bytes() == context,
                   "{}: pictures of {} x {} x {} have {} bytes, but the model was made for {} bytes",
                   material.name, shape.height, shape.width, shape.channels, material.record_bytes(),
                   context);
  LONGSTRIDE_CHECK(
      std::all_of(options.min_context.begin(), options.min_context.end(), [](int64_t m) { return m == 0; }),
      "--min-context is for text and sound; each picture has its own window");
}

struct Result {
  Evaluation evaluation;
  double seconds = 0;
  double int8_cost = 0;  // bits above those of the unquantised weights
  double rate() const { return static_cast<double>(evaluation.bytes) / seconds; }
};

Result measure(Transformer& model, const LoadedModel& loaded, const Material& material, int64_t min_context,
               int64_t max_bytes) {
  StatusLine status("evaluating");
  Result result;
  result.evaluation = evaluate_segment(model, loaded.parameters(), material.segment, min_context, max_bytes,
                                       [&](int64_t done, int64_t total) { status.update(done, total); });
  result.seconds = status.seconds();
  LONGSTRIDE_CHECK(std::isfinite(result.evaluation.nats),
                   "the loss is not finite: the weights of step {} are damaged, or training diverged",
                   loaded.step());
  return result;
}

std::vector<Result> measure_all(Transformer& model, const LoadedModel& loaded, const Material& material,
                                const std::vector<int64_t>& min_contexts, int64_t max_bytes) {
  std::vector<Result> results;
  for (const int64_t min_context : min_contexts)
    results.push_back(measure(model, loaded, material, min_context, max_bytes));
  return results;
}

void write_curve(const std::string& path, const Evaluation& evaluation) {
  write_output(path, [&](ByteSink& sink) {
    sink.write("position,bits,count\n");
    for (size_t position = 0; position < evaluation.nats_at.size(); ++position) {
      const int64_t count = evaluation.count_at[position];
      if (count == 0) continue;
      sink.write(fmt::format("{},{:.6f},{}\n", position,
                             evaluation.nats_at[position] / (static_cast<double>(count) * std::numbers::ln2),
                             count));
    }
  });
}

nlohmann::json as_json(const Result& result, const char* unit, bool int8) {
  const Evaluation& e = result.evaluation;
  nlohmann::json curve = nlohmann::json::array();
  for (const CurvePoint& point : e.curve())
    curve.push_back(
        {{"first", point.first}, {"last", point.last}, {"bits", point.bits}, {"count", point.count}});
  nlohmann::json out{{"min_context", e.min_context},
                     {"bits", e.bits()},
                     {unit, e.bits()},
                     {"standard_error", e.standard_error},
                     {"perplexity", e.perplexity()},
                     {"bytes", e.bytes},
                     {"windows", e.windows},
                     {"seconds", result.seconds},
                     {"bytes_per_second", result.rate()},
                     {"curve", curve}};
  if (int8) out["int8_cost"] = result.int8_cost;
  return out;
}

void print_results(const std::vector<Result>& results) {
  print_result("{:>11}  {:>9}  {:>8}  {:>12}  {:>8}\n", "min context", "bits/byte", "+-", "bytes scored",
               "time");
  for (const Result& result : results) {
    const Evaluation& e = result.evaluation;
    print_result("{:>11}  {:>9.4f}  {:>8.4f}  {:>12}  {:>8}\n", e.min_context, e.bits(), e.standard_error,
                 e.bytes, human_seconds(result.seconds));
  }
}

void print_block(const Result& result, const char* unit) {
  const Evaluation& e = result.evaluation;
  print_result("{:<14} {:.4f}", unit, e.bits());
  if (e.windows > 1) print_result(" +- {:.4f} (standard error over {} windows)", e.standard_error, e.windows);
  print_result("\nperplexity     {:.3f} a byte\n", e.perplexity());
  print_result("scored         {} bytes in {:.1f} s, {} a second", e.bytes, result.seconds,
               human_count(result.rate()));
  if (e.min_context > 0) print_result("; each beyond the first window had seen {} or more", e.min_context);
  print_result("\n\n{:<15}{:>8}  {:>10}\n", "position", "bits", "bytes");
  for (const CurvePoint& point : e.curve()) {
    const std::string positions = point.first == point.last ? std::to_string(point.first)
                                                            : fmt::format("{}-{}", point.first, point.last);
    print_result("{:<15}{:>8.4f}  {:>10}\n", positions, point.bits, point.count);
  }
}

void print_int8_cost(const std::vector<Result>& results, const char* unit) {
  print_result("\n");
  for (const Result& result : results) {
    print_result("int8 weights cost {:.4f} {}", result.int8_cost, unit);
    if (results.size() > 1) print_result(" with a minimum context of {}", result.evaluation.min_context);
    print_result("\n");
  }
}

}  // namespace

int run_eval(const EvalOptions& options) {
  const RunConfig config = load_run_config(options.run, options.overrides);
  use_instructions(config.compute);
  const Material material = open_material(options, config);
  check_request(options, config, material);
  const bool int8 = options.weights == "int8";
  const LoadedModel loaded(options.run, config.compute, {.step = options.step, .int8 = int8});

  const std::vector<int64_t> min_contexts =
      options.min_context.empty() ? std::vector<int64_t>{0} : options.min_context;
  const int64_t context = config.model.context;
  ComputePlan plan;
  plan.device = loaded.device();
  plan.product = loaded.product();
  plan.batch = options.batch > 0 ? options.batch : std::max<int64_t>(1, kBatchRows / context);
  const int64_t size = material.segment.size();
  const int64_t used = options.max_bytes > 0 ? std::min(options.max_bytes, size) : size;
  const int64_t advance = context - *std::max_element(min_contexts.begin(), min_contexts.end());
  // No more than there are windows, so that the sums are those of the library, whose rows are as many.
  plan.batch = std::min(plan.batch, 1 + (std::max<int64_t>(0, used - context) + advance - 1) / advance);
  LONGSTRIDE_CHECK(plan.device.kind == DeviceKind::cpu || plan.batch <= kMostGpuSequences,
                   "--batch {}: a GPU takes up to {} sequences at a time", plan.batch, kMostGpuSequences);
  const MemoryPlan memory = plan_memory(config.model, plan, false);
  const int64_t needed =
      memory.activations + memory.temporaries + memory.plans + BatchRoom::bytes(plan.batch, context);
  const char* smaller = "choose a smaller --batch";
  check_gpu_room(plan.device, needed, "evaluation", plan.batch > 1 ? smaller : "use --device cpu");
  note_little_memory(
      check_cpu_room(plan.device, needed, "evaluation", plan.batch > 1 ? smaller : "free some memory"));
  Transformer model(config.model, plan);
  note_slow_cpu(plan.device);

  std::vector<Result> results = measure_all(model, loaded, material, min_contexts, options.max_bytes);
  if (int8) {
    const LoadedModel exact(options.run, config.compute, {.step = options.step});
    const std::vector<Result> before = measure_all(model, exact, material, min_contexts, options.max_bytes);
    for (size_t i = 0; i < results.size(); ++i)
      results[i].int8_cost = results[i].evaluation.bits() - before[i].evaluation.bits();
  }
  // This comes last, so that the result is there even if the curve cannot be written.
  const auto keep_curve = [&] {
    flush_results();
    if (!options.curve.empty()) write_curve(options.curve, results[0].evaluation);
    if (!options.entropy.empty())
      write_entropy_file(options.entropy, model, loaded.parameters(), material.segment, used, min_contexts[0],
                         fmt::format("{}, step {}: {}", options.run, loaded.step(), material.name));
  };
  const bool pictures = material.record_bytes() > 0;
  if (options.json) {
    nlohmann::json out{{"run", options.run},
                       {"step", loaded.step()},
                       {"data", material.name},
                       {"weights", options.weights},
                       {"context", context}};
    for (const Result& result : results)
      out["results"].push_back(as_json(result, pictures ? "bits_per_dim" : "bits_per_byte", int8));
    print_json(out);
    return keep_curve(), 0;
  }
  print_result("run            {}, step {}\n", options.run, loaded.step());
  print_result("data           {}\n", material.name);
  if (results.size() > 1)
    print_results(results);
  else
    print_block(results[0], pictures ? "bits per dim" : "bits per byte");
  if (int8) print_int8_cost(results, pictures ? "bits per dimension" : "bits per byte");
  keep_curve();
  if (!options.curve.empty()) print_result("\ncurve by position in {}\n", options.curve);
  if (!options.entropy.empty()) print_result("\nbits of every byte in {}\n", options.entropy);
  return 0;
}

}  // namespace longstride::cli
