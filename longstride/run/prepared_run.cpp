#include "longstride/run/prepared_run.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <unistd.h>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/run/choices.h"
#include "longstride/run/run_data.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/stages.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

// Metrics files are appended to, which needs more than permission to write in the folder.
void check_metrics(const std::string& directory) {
  const std::string path = (fs::path(directory) / "metrics.jsonl").string();
  check_file_or_absent(path);
  LONGSTRIDE_CHECK(access(path.c_str(), W_OK) == 0 || errno == ENOENT || errno == ENOTDIR,
                   "cannot write {}: {}", path, last_system_error());
}

}  // namespace

std::optional<RunLock> lock_existing_run(const std::string& directory, const Notes& note) {
  if (!is_run_directory(directory)) return {};
  RunLockOptions options;
  options.note = note;
  return RunLock(directory, options);
}

PreparedRun::PreparedRun(RunRequest request, std::optional<RunLock> lock, const Notes& note)
    : directory_(std::move(request.directory)),
      command_(std::move(request.command)),
      config_(std::move(request.config)),
      lock_(std::move(lock)) {
  request.directory = directory_;
  check_directory(request);
  // All this comes before anything in the run is changed.
  check_can_save(directory_);
  check_metrics(directory_);
  const bool trained = state_of_directory(directory_) == RunDirectoryState::trained;
  if (trained) check_model();
  open_data(request, trained, note);
  if (trained) {
    open_checkpoint(request.from_step, note);
    return;
  }
  try {
    make_directory(note);
    // Another process may have been faster.
    check_directory(request);
    LONGSTRIDE_CHECK(
        state_of_directory(directory_) != RunDirectoryState::trained,
        "{}: meanwhile another process has begun this run and ended; go on with 'longstride train {}'",
        directory_, directory_);
  } catch (...) {
    remove_made();
    throw;
  }
}

PreparedRun::~PreparedRun() {
  if (!committed_) remove_made();
}

void PreparedRun::check_directory(const RunRequest& request) const {
  switch (state_of_directory(directory_)) {
    case RunDirectoryState::fresh:
    case RunDirectoryState::begun:
      return;
    case RunDirectoryState::trained:
      LONGSTRIDE_CHECK(request.go_on,
                       "{} already holds a run; go on with 'longstride train {}' or choose another --run{}",
                       directory_, directory_, request.advice);
      return;
    case RunDirectoryState::stripped:
      fail(
          "{}: the run was trained, but no checkpoint is left to go on from; put its checkpoints back, or "
          "begin "
          "another run with --run{}",
          directory_,
          fs::exists(fs::path(directory_) / "model.safetensors")
              ? " (eval and sample still use its model.safetensors)"
              : "");
    case RunDirectoryState::foreign:
      fail("{} exists and is not an empty directory; choose another --run", directory_);
  }
}

// Fields of the model's section may not change once a run has weights, which would not fit. Nor may the
// optimizer, because of its state.
void PreparedRun::check_model() {
  RunConfig saved = read_run_config(directory_);
  // A run that has begun keeps its rule.
  config_.train.schedule = saved.train.schedule;
  config_.train.newton_schulz = saved.train.newton_schulz;
  // A config that leaves the axes open means the axes that the run took from its pictures.
  if (config_.model.position_axes.empty()) config_.model.position_axes = saved.model.position_axes;
  LONGSTRIDE_CHECK(config_.train.optimizer == saved.train.optimizer,
                   "{}: the run has train.optimizer = \"{}\", not \"{}\", which needs other state than its "
                   "checkpoints hold; begin a new --run",
                   directory_, saved.train.optimizer, config_.train.optimizer);
  RunConfig wanted = config_;
  FieldList before, after;
  before.section("model"), saved.model.fields(before);
  after.section("model"), wanted.model.fields(after);
  for (size_t i = 0; i < before.all().size(); ++i) {
    const Field &was = before.all()[i], &is = after.all()[i];
    if (was.value_as_toml() != is.value_as_toml())
      fail("{}: the run has {} = {}, not {}; its weights do not fit another model, begin a new --run",
           directory_, was.key(), was.value_as_toml(), is.value_as_toml());
  }
}

void PreparedRun::open_data(const RunRequest& request, bool trained, const Notes& note) {
  const std::string relative =
      trained ? note_relative_paths(read_run_config(directory_).data, directory_) : "";
  if (note && !relative.empty()) note(relative);
  make_paths_absolute(config_.data);
  RunConfig as_given = config_;
  choose_kind(config_.data);
  splits_ = open_run_data(config_.data, trained ? directory_ : "");
  if (trained && request.data_changed)
    validation_changed_ = !same_validation(directory_, config_.data, splits_);
  else if (trained)
    record_data_ = !check_run_data(directory_, config_.data, splits_);
  if (is_open(config_)) choose_shape(config_, splits_);
  chosen_ = changes_of(as_given, config_);
  const Corpus& corpus = *splits_.train.corpus;
  const int64_t context = config_.model.context;
  take_pictures(config_, corpus, !trained);
  for (const Stage& stage : stages_of(config_))
    LONGSTRIDE_CHECK(corpus.record_bytes() == 0 || stage.pieces == 1,
                     "train.context_schedule: the pictures of {} are learnt whole; leave it empty",
                     config_.data.path);
  LONGSTRIDE_CHECK(splits_.train.size() >= context,
                   "{}: the training part has {} bytes, less than model.context = {}", config_.data.path,
                   splits_.train.size(), context);
}

void PreparedRun::open_checkpoint(int64_t from_step, const Notes& note) {
  if (from_step >= 0) {
    checkpoint_.emplace(find_checkpoint(directory_, from_step));
    return;
  }
  IntactCheckpoint newest = newest_intact(directory_);
  if (note)
    for (const std::string& warning : newest.warnings) note(warning);
  LONGSTRIDE_CHECK(newest.found, "{}: every checkpoint is damaged; start a new run with another --run",
                   directory_);
  checkpoint_ = std::move(newest.opened);
}

void PreparedRun::make_directory(const Notes& note) {
  begins_anew_ = state_of_directory(directory_) == RunDirectoryState::begun;
  std::error_code ignored;
  for (fs::path path = fs::absolute(directory_); !path.empty() && !fs::exists(path, ignored);
       path = path.parent_path())
    made_.insert(made_.begin(), path.string());
  make_directories(directory_);
  if (lock_) return;
  RunLockOptions options;
  options.note = note;
  lock_.emplace(directory_, options);
}

void PreparedRun::remove_made() {
  if (made_.empty()) return;
  if (lock_) lock_->remove();
  for (auto path = made_.rbegin(); path != made_.rend(); ++path) rmdir(path->c_str());
}

void PreparedRun::commit() {
  write_run_config(directory_, config_);
  if (record_data_) record_run_data(directory_, config_.data, splits_);
  if (!command_.empty()) record_command(directory_, command_);
  committed_ = true;
}

}  // namespace longstride
