#include <memory>
#include <optional>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/checkpoint/checkpoint.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/facade/model_state.h"
#include "longstride/longstride.h"
#include "longstride/pattern/pattern.h"
#include "longstride/run/choices.h"
#include "longstride/run/prepared_run.h"
#include "longstride/run/run_data.h"
#include "longstride/run/stages.h"
#include "longstride/train/memory.h"
#include "longstride/train/trainer.h"

namespace longstride {

namespace {

void check_keys_of_bytes(const NamedKeys& named) {
  for (const char* of_files :
       {"data.path", "data.validation_path", "data.test_path", "data.cache", "data.split"})
    LONGSTRIDE_CHECK(!named.contains(of_files),
                     "{}: training on bytes in memory learns all that it is given, and reads no file",
                     of_files);
}

// `before`, changed by the config file and the settings. Adds the keys that these name to `named`.
RunConfig changed(RunConfig before, const TrainOptions& options, NamedKeys* named) {
  RunConfig config = options.config.empty() ? std::move(before)
                                            : RunConfig::from_file(options.config, std::move(before), named);
  const FieldList fields = config.fields();
  for (const std::string& setting : options.settings) {
    const std::string key = apply_override(setting, fields);
    if (named != nullptr) named->insert(key);
  }
  LONGSTRIDE_CHECK(config.compute.instructions == "auto",
                   "compute.instructions holds for a whole process, it cannot be set for one training");
  return config;
}

// What is not named has the values that `longstride train` would give it.
RunConfig config_of(const TrainOptions& options, NamedKeys& named) {
  const RunConfig as_named = changed({}, options, &named);
  RunConfig config = changed(defaults_of(as_named, named), options, nullptr);
  try {
    if (!config.model.pattern.empty()) parse_schedule(config.model.pattern.text());
  } catch (const PatternError& error) {
    throw Error("model.pattern: " + error.with_caret());
  }
  config.check();
  return config;
}

Splits splits_of(const RunConfig& config, std::span<const uint8_t> bytes) {
  LONGSTRIDE_CHECK(!bytes.empty(), "there are no bytes to train on");
  ImageShape shape;
  if (modality_of(config.data).records) {
    shape = {config.data.image_height, config.data.image_width, config.data.image_channels};
    LONGSTRIDE_CHECK(
        shape.bytes() > 0,
        "bytes of pictures need their shape: set data.image_height, image_width and image_channels");
  }
  const auto corpus = std::make_shared<const Corpus>(std::vector<uint8_t>(bytes.begin(), bytes.end()), shape);
  return {.train = {corpus, 0, corpus->size()}, .validation = {}, .test = {}};
}

// What is still open follows from the bytes.
void complete(RunConfig& config, const Splits& splits) {
  if (is_open(config)) choose_shape(config, splits);
  const Corpus& corpus = *splits.train.corpus;
  take_pictures(config, corpus, true);
  for (const Stage& stage : stages_of(config))
    LONGSTRIDE_CHECK(corpus.record_bytes() == 0 || stage.pieces == 1,
                     "train.context_schedule: pictures are learnt whole; leave it empty");
  LONGSTRIDE_CHECK(corpus.size() >= config.model.context,
                   "{} bytes to train on are less than model.context = {}", corpus.size(),
                   config.model.context);
}

void check_directory(const std::string& run) {
  LONGSTRIDE_CHECK(state_of_directory(run) == RunDirectoryState::fresh,
                   "{} is not empty; a run that is trained from memory needs a new directory", run);
  check_can_save(run);
}

void save(const std::string& run, const RunConfig& config, int64_t step, const CheckpointContents& contents) {
  make_directories(run);
  prepare_run_directory(run);
  write_run_config(run, config);
  save_checkpoint(run, step, contents);
  publish_model(run, step);
}

TrainProgress progress_of(const StepReport& report, const Trainer& trainer) {
  return {.step = report.step,
          .done = trainer.progress(),
          .bits = report.bits,
          .learning_rate = report.learning_rate,
          .seconds = trainer.state().seconds,
          .gradient_norm = report.gradient_norm};
}

}  // namespace

Model train(std::span<const uint8_t> bytes, const TrainOptions& options) {
  NamedKeys named;
  RunConfig config = config_of(options, named);
  check_keys_of_bytes(named);
  if (config.data.kind == kOpenKind) config.data.kind = "text";
  if (!options.run.empty()) check_directory(options.run);
  const Splits splits = splits_of(config, bytes);
  const AtWork work(parse_device(config.compute.device), config.compute.threads);
  complete(config, splits);
  check_training_memory(config);
  Trainer trainer(config, splits);
  while (trainer.progress() < 1) {
    const StepReport report = trainer.step();
    if (options.after_step && !options.after_step(progress_of(report, trainer))) break;
  }
  const int64_t step = trainer.state().step;
  const CheckpointContents contents = trainer.contents();
  if (!options.run.empty()) save(options.run, config, step, contents);
  return Model(std::make_shared<const ModelState>(ModelState{LoadedModel(config, step, contents.model)}));
}

Model train_on_files(const TrainOptions& options) {
  LONGSTRIDE_CHECK(!options.run.empty(), "training on files needs a directory for its run");
  const bool goes_on = options.go_on && state_of_directory(options.run) == RunDirectoryState::trained;
  std::optional<RunLock> lock = lock_existing_run(options.run, options.note);
  NamedKeys named;
  RunConfig config;
  if (goes_on) {
    config = changed(read_run_config(options.run), options, nullptr);
    config.check();
  } else {
    config = config_of(options, named);
  }
  LONGSTRIDE_CHECK(!config.data.path.empty(), "training on files needs data.path, which names them");
  const AtWork work(parse_device(config.compute.device), config.compute.threads);
  const LoadOptions load{.device = config.compute.device,
                         .precision = config.compute.precision,
                         .threads = static_cast<int>(config.compute.threads)};
  {
    PreparedRun prepared({.directory = options.run, .config = std::move(config), .go_on = options.go_on},
                         std::move(lock), options.note);
    TrainObserver observer;
    observer.note = options.note;
    observer.show_progress = false;
    observer.catch_signals = false;
    if (options.after_step)
      observer.after_step = [&](const StepReport& report, const Trainer& trainer,
                                std::optional<double> validation_bits) {
        TrainProgress progress = progress_of(report, trainer);
        progress.validation_bits = validation_bits;
        return options.after_step(progress);
      };
    train_run(prepared, check_training_memory(prepared.config()), observer);
  }
  return Model(options.run, load);
}

}  // namespace longstride
