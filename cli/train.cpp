// `longstride train`: begins a run from a config, or goes on with one.
#include <algorithm>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/data/corpus.h"
#include "longstride/device/backend.h"
#include "longstride/device/instructions.h"
#include "longstride/dist/comm.h"
#include "longstride/dist/device_comm.h"
#include "longstride/dist/launch.h"
#include "longstride/dist/spawn.h"
#include "longstride/model/cost.h"
#include "longstride/pattern/analyse.h"
#include "longstride/run/prepared_run.h"
#include "longstride/run/run_directory.h"
#include "longstride/train/memory.h"
#include "longstride/train/ranks.h"
#include "longstride/train/trainer.h"

#include "cli/commands.h"
#include "cli/data_notes.h"
#include "cli/file_argument.h"
#include "cli/load_config.h"
#include "cli/standard_streams.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

std::string processor_of(Device device) {
  return device.kind == DeviceKind::cpu
             ? describe_cpu()
             : fmt::format("{}: {}", name_of(device), backend(device).describe(device.index));
}

void note_run_inside_data(const PreparedRun& prepared) {
  std::error_code ignored;
  const std::string run = fs::weakly_canonical(prepared.directory(), ignored).string();
  const DataConfig& data = prepared.config().data;
  for (const std::string& path : {data.path, data.validation_path, data.test_path}) {
    if (path.empty() || !fs::is_directory(path, ignored)) continue;
    const std::string folder = fs::canonical(path, ignored).string();
    if (run.starts_with(folder + "/"))
      say("note       the run lies in its own data {}: folders of runs there are not read as data", path);
  }
}

void note_reach(const ModelConfig& model) {
  const Reach reach = analyse_reach(model.schedule(), model.layers, model.heads, model.context);
  if (!reach.complete) say("warning    {}", longstride::describe(reach, model.context));
}

// What begins, for programs.
void tell_start(const PreparedRun& prepared, int ranks) {
  const RunConfig& config = prepared.config();
  const Splits& splits = prepared.splits();
  const Device device = parse_device(config.compute.device);
  say_event({{"event", "start"},
             {"run", prepared.directory()},
             {"resumed", prepared.resumes()},
             {"chosen", prepared.chosen()},
             {"parameters", cost_of(config.model).parameters},
             {"layers", config.model.layers},
             {"pattern", config.model.pattern.text()},
             {"context", config.model.context},
             {"device", processor_of(device)},
             {"threads", threads()},
             {"products", name_of(product_precision(config.compute, device))},
             {"ranks", ranks},
             {"train_bytes", splits.train.size()},
             {"validation_bytes", splits.validation.size()},
             {"test_bytes", splits.test.size()}});
}

void describe(const PreparedRun& prepared) {
  const RunConfig& config = prepared.config();
  const Splits& splits = prepared.splits();
  const Device device = parse_device(config.compute.device);
  const ModelCost cost = cost_of(config.model);
  say("run        {}{}", prepared.directory(),
      prepared.resumes()       ? " (resumed)"
      : prepared.begins_anew() ? " (started again: an earlier start left no checkpoint)"
                               : "");
  if (!prepared.chosen().empty()) say("chosen     {}", prepared.chosen());
  say("model      {} parameters, {} layers of {}, context {}",
      human_count(static_cast<double>(cost.parameters)), config.model.layers, config.model.pattern.text(),
      config.model.context);
  const std::string limit =
      instruction_limit() == Instructions::any ? "" : ", limited to " + name_of(instruction_limit());
  say("device     {}{}, {} threads, {} products", processor_of(device), limit, threads(),
      name_of(product_precision(config.compute, device)));
  say("data       {}: {} bytes to train on, {} for validation, {} for test",
      splits.train.corpus->description(), splits.train.size(), splits.validation.size(), splits.test.size());
  for (const auto& [part, segment] : {std::pair{"validation", &splits.validation}, {"test", &splits.test}})
    if (segment->corpus && segment->corpus != splits.train.corpus)
      say("data       for {}: {}", part, segment->corpus->description());
}

// The run that the command line names, and the advice if there is one already.
RunRequest request_of(const TrainOptions& options, bool target_is_run) {
  RunRequest request;
  request.directory = options.run;
  request.from_step = options.step;
  request.go_on = target_is_run || options.resume;
  request.data_changed = options.data_changed;
  for (char** word = options.arguments; word != nullptr && *word != nullptr; ++word)
    request.command.emplace_back(*word);
  if (!request.directory.empty()) return request;
  request.directory = target_is_run ? options.target : "runs/" + fs::path(options.target).stem().string();
  if (!target_is_run)
    request.advice = fmt::format("; without --run a run is named after its config, here {}",
                                 fs::path(options.target).filename().string());
  return request;
}

// A number that was not measured becomes null: 0 would look like the best of all.
template <class Number>
nlohmann::json known(Number number, bool is_known) {
  return is_known ? nlohmann::json(number) : nlohmann::json(nullptr);
}

}  // namespace

namespace {

// The numbers of `--parallel data=2,sequence=4`; 0 where one is not named.
struct Parallel {
  int64_t data = 0, sequence = 0;
};

Parallel parse_parallel(const std::string& text) {
  Parallel parallel;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    int64_t* const number = name == "data"       ? &parallel.data
                            : name == "sequence" ? &parallel.sequence
                                                 : nullptr;
    if (number == nullptr || equals == std::string::npos || *number != 0)
      throw UsageError(fmt::format("--parallel {}: must be as data=2,sequence=4, each once", text));
    *number = parse_integer(part.substr(equals + 1), "--parallel " + name);
    if (*number < 1 || *number > 1024)
      throw UsageError(fmt::format("--parallel {}: {} must lie between 1 and 1024", text, name));
  }
  return parallel;
}

// Makes the number of ranks and the overrides of the config out of --gpus and --parallel.
void settle_ranks(TrainOptions& options) {
  if (options.gpus > 0) {
    if (options.ranks > 0 && options.ranks != options.gpus)
      throw UsageError(
          fmt::format("--gpus {} is {} ranks, one each; leave --ranks out", options.gpus, options.gpus));
    options.ranks = options.gpus;
    // A config may name another device; who names one beside --gpus wants two things.
    for (const std::string& text : options.overrides) {
      const size_t equals = text.find('=');
      if (equals == std::string::npos || trim(std::string_view(text).substr(0, equals)) != "compute.device")
        continue;
      const std::string_view device = trim(std::string_view(text).substr(equals + 1));
      if (device != "cuda" && device != "auto")
        throw UsageError(
            fmt::format("--gpus {} and device {}: ranks take a GPU each, the first takes GPU 0; "
                        "leave the device out (CUDA_VISIBLE_DEVICES says which GPUs they may be)",
                        options.gpus, device));
    }
    options.overrides.push_back("compute.device=cuda");
  }
  if (options.parallel.empty()) return;
  Parallel parallel = parse_parallel(options.parallel);
  if (parallel.sequence == 0) parallel.sequence = 1;
  if (parallel.data == 0) parallel.data = std::max<int64_t>(1, options.ranks / parallel.sequence);
  const int64_t product = parallel.data * parallel.sequence;
  if (options.ranks > 0 && options.ranks != product)
    throw UsageError(fmt::format("--parallel {} is {} ranks, but --{} says {}", options.parallel, product,
                                 options.gpus > 0 ? "gpus" : "ranks", options.ranks));
  for (const std::string& text : options.overrides)
    if (trim(std::string_view(text).substr(0, text.find('='))) == "compute.sequence_ranks")
      throw UsageError(fmt::format("--parallel {} and --set {}: one of them", options.parallel, text));
  options.ranks = product;
  options.overrides.push_back(fmt::format("compute.sequence_ranks={}", parallel.sequence));
}

void say_ranks(const RunConfig& config, int ranks) {
  const int64_t sharing = config.compute.sequence_ranks;
  const std::string device =
      parse_device(config.compute.device).kind == DeviceKind::cpu ? "" : " on a GPU of its own";
  const int64_t batch = config.train.batch, share = batch / batch_parts(config, ranks);
  if (sharing == 1)
    say("ranks      {}, each{} takes {} of {} sequences a step", ranks, device, share, batch);
  else
    say("ranks      {}, each{}; {} share each sequence, and {} of {} sequences a step are a group's", ranks,
        device, sharing, share, batch);
}

// What the ranks after the first do: they take the run that rank 0 leads.
int follow_rank_0(const TrainOptions& options, Comm& comm, const std::string& no_device) {
  tell_about_data(true);
  std::string error, run;
  RankIdentity identity;
  try {
    LONGSTRIDE_CHECK(no_device.empty(), "{}", no_device);
    run = request_of(options, fs::is_directory(options.target)).directory;
    const RunConfig config = load_config(options.target, options.overrides, run);
    use_instructions(config.compute);
    identity = identity_of_rank(config);
  } catch (const std::exception& failure) {
    error = failure.what();
  }
  try {
    follow(comm, identity, error, run);
  } catch (const RankLost&) {
    return 1;  // who started the ranks says how rank 0 ended
  }
  // Also where rank 0 has failed: a launcher that saw another end first would cut rank 0's message off.
  return 0;
}

// That of a run would begin a second one, when most likely the first is to go on. A config of that name in a folder that
// is no run is as good as any.
void refuse_config_of_run(const TrainOptions& options) {
  const fs::path target(options.target);
  if (target.filename() != "config.toml" || !options.run.empty()) return;
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  if (!fs::is_regular_file(fs::path(folder) / ".lock") &&
      state_of_directory(folder) != RunDirectoryState::trained)
    return;
  throw UsageError(
      fmt::format("{} belongs to a run: go on with it by 'longstride train {}', or begin another with its "
                  "config and --run",
                  options.target, file_argument(folder)));
}

// The field that a finished run needs more of.
const char* limit_that_ended(const TrainConfig& train, double seconds) {
  if (train.minutes > 0 && seconds >= 60 * train.minutes) return "minutes=N";
  return train.epochs > 0 ? "epochs=N" : "steps=N";
}

}  // namespace

int run_train(const TrainOptions& of_command) {
  TrainOptions options = of_command;
  const char* const option = !options.parallel.empty() ? "--parallel"
                             : options.gpus > 0        ? "--gpus"
                                                       : "--ranks";
  settle_ranks(options);
  // The processes that are started here find themselves among ranks.
  if (options.ranks > 1 && launch_of_environment().launcher == Launcher::none) {
    // What the command line and the config forbid is said before a thousand processes start.
    for_ranks(load_config(options.target, options.overrides), static_cast<int>(options.ranks));
    return run_ranks(static_cast<int>(options.ranks), options.arguments);
  }
  const std::unique_ptr<Comm> comm = join_ranks();
  if (options.ranks > 1 && comm->size() != options.ranks)
    throw UsageError(fmt::format("{0} means {1} ranks, but {2} started {3} processes; leave {0} out", option,
                                 options.ranks, name_of(launch_of_environment().launcher), comm->size()));
  const ShareOfMachine share = take_own_device(*comm);
  if (comm->rank() > 0) return follow_rank_0(options, *comm, share.no_device);
  Leader leader(*comm);
  tell_about_data(options.quiet);
  const bool target_is_run = fs::is_directory(options.target);
  refuse_config_of_run(options);
  RunRequest request = request_of(options, target_is_run);
  const std::string run = request.directory;
  if (target_is_run && run != options.target)
    throw UsageError("--run names a new run; to go on with one, give its directory alone");
  const Notes note = [](const std::string& line) { say_line(line); };

  // Errors in the command line or the config are reported before anybody is waited for.
  if (!target_is_run) load_config(options.target, options.overrides);
  std::optional<RunLock> lock = lock_existing_run(run, note);
  std::string recipe_note;
  request.config = load_config(options.target, options.overrides, run, &recipe_note);
  use_instructions(request.config.compute);
  const RankIdentity identity = comm->size() > 1 ? identity_of_rank(request.config) : RankIdentity{};
  if (options.step >= 0 && !(request.go_on && state_of_directory(run) == RunDirectoryState::trained))
    throw UsageError("--step only applies when an existing run goes on");
  set_threads(static_cast<int>(request.config.compute.threads));
  PreparedRun prepared(std::move(request), std::move(lock), note);
  const RunConfig& config = prepared.config();
  const MemoryVerdict memory = check_training_memory(config, comm->size(), share.ranks);
  leader.prepare(identity, config, prepared.splits());

  if (!options.quiet) {
    if (log_format() == LogFormat::json) {
      tell_start(prepared, comm->size());
    } else {
      describe(prepared);
      if (comm->size() > 1) say_ranks(config, comm->size());
    }
    note_reach(config.model);
    note_run_inside_data(prepared);
    if (!recipe_note.empty()) say("note       {}", recipe_note);
  }
  note_slow_cpu(parse_device(config.compute.device));
  TrainObserver observer;
  observer.show_progress = !options.quiet;
  observer.note = note;
  const TrainSummary summary = train_run(prepared, memory, observer, leader);

  if (options.json) {
    nlohmann::json out{
        {"run", run},
        {"complete", summary.complete},
        {"step", summary.state.step},
        {"train_bits", known(summary.train_bits, summary.train_bits > 0)},
        {"validation_bits", known(summary.validation_bits.value_or(0), summary.validation_bits.has_value())},
        {"best_bits", known(summary.state.best_bits, summary.state.best_step > 0)},
        {"best_step", known(summary.state.best_step, summary.state.best_step > 0)},
        {"seconds", summary.state.seconds},
        {"tokens_per_second", known(summary.tokens_per_second, summary.tokens_per_second > 0)},
        {"planned_memory", summary.planned_memory},
        {"peak_memory", summary.peak_memory}};
    if (product_precision(config.compute, parse_device(config.compute.device)) == DType::f16)
      out["loss_scale"] = summary.state.loss_scale;
    if (out.contains("loss_scale") || config.train.skip_spikes > 0)
      out["skipped_steps"] = summary.state.skipped;
    print_json(out);
  } else if (!options.quiet) {
    // A run that was finished before takes no step and needs no memory.
    const std::string memory_taken =
        summary.peak_memory == 0
            ? ""
            : fmt::format("; {}memory {} (planned {})",
                          parse_device(config.compute.device).kind == DeviceKind::cuda ? "GPU " : "",
                          human_bytes(static_cast<double>(summary.peak_memory)),
                          human_bytes(static_cast<double>(summary.planned_memory)));
    say("{} at step {} after {} of training{}", summary.complete ? "finished" : "stopped", summary.state.step,
        human_seconds(summary.state.seconds), memory_taken);
    if (summary.complete)
      say("next: longstride sample {0}; longstride eval {0}; to train longer: longstride train {0} --set "
          "train.{1}",
          file_argument(run), limit_that_ended(config.train, summary.state.seconds));
    else
      say("go on with: longstride train {}", file_argument(run));
  }
  return summary.complete ? 0 : 128 + InterruptGuard::signal_number();
}

}  // namespace longstride::cli
