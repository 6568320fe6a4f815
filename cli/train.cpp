// `longstride train`: begins a run from a config, or goes on with one.
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/data/corpus.h"
#include "longstride/device/cuda.h"
#include "longstride/device/instructions.h"
#include "longstride/model/cost.h"
#include "longstride/pattern/analyse.h"
#include "longstride/run/run_directory.h"
#include "longstride/train/memory.h"
#include "longstride/train/trainer.h"

#include "cli/commands.h"
#include "cli/load_config.h"
#include "cli/standard_streams.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

// Fields of the model's section may not change once a run has begun: the weights would not fit.
void check_same_model(const std::string& run, RunConfig saved, RunConfig wanted) {
  FieldList before, after;
  before.section("model"), saved.model.fields(before);
  after.section("model"), wanted.model.fields(after);
  for (size_t i = 0; i < before.all().size(); ++i) {
    const Field &was = before.all()[i], &is = after.all()[i];
    if (was.value_as_toml() != is.value_as_toml())
      fail("{}: the run has {} = {}, not {}; its weights do not fit another model, begin a new --run", run,
           was.key(), was.value_as_toml(), is.value_as_toml());
  }
}

std::string processor_of(Device device) {
  return device.kind == DeviceKind::cpu
             ? describe_cpu()
             : fmt::format("{}: {}", name_of(device), cuda::describe(device.index));
}

void describe(const RunConfig& config, const std::string& run, bool resuming) {
  const Device device = parse_device(config.compute.device);
  const ModelCost cost = cost_of(config.model);
  say("run        {}{}", run, resuming ? " (resumed)" : "");
  say("model      {} parameters, {} layers of {}, context {}",
      human_count(static_cast<double>(cost.parameters)), config.model.layers, config.model.pattern,
      config.model.context);
  const std::string limit =
      instruction_limit() == Instructions::any ? "" : ", limited to " + name_of(instruction_limit());
  say("device     {}{}, {} threads, {} products", processor_of(device), limit, threads(),
      name_of(product_precision(config.compute, device)));
  const Reach reach =
      analyse_reach(config.model.schedule(), config.model.layers, config.model.heads, config.model.context);
  if (!reach.complete) say("warning    {}", longstride::describe(reach, config.model.context));
}

}  // namespace

int run_train(const TrainOptions& options) {
  RunConfig config = load_config(options.target, options.overrides);
  use_instructions(config.compute);
  const bool target_is_run = fs::is_directory(options.target);
  std::string run = options.run;
  if (run.empty()) run = target_is_run ? options.target : "runs/" + fs::path(options.target).stem().string();
  if (target_is_run && run != options.target)
    throw UsageError("--run names a new run; to go on with one, give its directory alone");

  const bool resuming = is_run_directory(run) && (target_is_run || options.resume);
  if (options.step >= 0 && !resuming) throw UsageError("--step goes with a run directory to go on with");
  if (resuming && options.step >= 0) find_checkpoint(run, options.step);
  if (resuming) check_same_model(run, read_run_config(run), config);
  // Read the data before anything is created: a typing error in a path should leave no directory behind.
  const Splits splits = open_splits(config.data);
  LONGSTRIDE_CHECK(
      splits.train.corpus->record_bytes() == 0 || splits.train.corpus->record_bytes() == config.model.context,
      "model.context = {}, but a picture of {} has {} bytes; set model.context to that", config.model.context,
      config.data.path, splits.train.corpus->record_bytes());
  LONGSTRIDE_CHECK(splits.train.size() >= config.model.context,
                   "{}: the training part has {} bytes, less than model.context = {}", config.data.path,
                   splits.train.size(), config.model.context);
  // The run should know its pictures' shape without the data.
  const ImageShape& shape = splits.train.corpus->shape();
  config.data.image_height = shape.height, config.data.image_width = shape.width;
  config.data.image_channels = shape.channels;
  set_threads(static_cast<int>(config.compute.threads));
  check_training_memory(config);
  if (resuming)
    write_run_config(run, config);
  else
    create_run_directory(run, config);

  if (!options.quiet) {
    describe(config, run, resuming);
    say("data       {}: {} bytes to train on, {} for validation, {} for test",
        splits.train.corpus->description(), splits.train.size(), splits.validation.size(),
        splits.test.size());
  }
  note_slow_cpu(parse_device(config.compute.device));
  TrainObserver observer;
  observer.show_progress = !options.quiet;
  observer.note = [&](const std::string& line) { say_line(line); };
  const TrainSummary summary = train_run(run, config, options.step, observer);

  if (options.json) {
    nlohmann::json out{{"run", run},
                       {"complete", summary.complete},
                       {"step", summary.state.step},
                       {"train_bits", summary.train_bits},
                       {"validation_bits", summary.validation_bits},
                       {"best_bits", summary.state.best_bits},
                       {"best_step", summary.state.best_step},
                       {"seconds", summary.state.seconds},
                       {"tokens_per_second", summary.tokens_per_second},
                       {"planned_memory", summary.planned_memory},
                       {"peak_memory", summary.peak_memory}};
    if (product_precision(config.compute, parse_device(config.compute.device)) == DType::f16)
      out["loss_scale"] = summary.state.loss_scale, out["skipped_steps"] = summary.state.skipped;
    print_json(out);
  } else if (!options.quiet) {
    say("{} at step {} after {} of training; {}memory {} (planned {})",
        summary.complete ? "finished" : "stopped", summary.state.step, human_seconds(summary.state.seconds),
        parse_device(config.compute.device).kind == DeviceKind::cuda ? "GPU " : "",
        human_bytes(static_cast<double>(summary.peak_memory)),
        human_bytes(static_cast<double>(summary.planned_memory)));
    if (!summary.complete) say("go on with: longstride train {}", run);
  }
  return 0;
}

}  // namespace longstride::cli
