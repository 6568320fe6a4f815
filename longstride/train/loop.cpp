// The loop around the training step.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/text.h"
#include "longstride/checkpoint/checkpoint.h"
#include "longstride/pattern/analyse.h"
#include "longstride/run/gpu_room.h"
#include "longstride/train/loss_watch.h"
#include "longstride/train/memory.h"
#include "longstride/train/metrics.h"
#include "longstride/train/progress.h"
#include "longstride/train/ranks.h"
#include "longstride/train/trainer.h"

namespace longstride {

namespace {

void add(Interval& interval, const StepReport& report) {
  interval.bits += report.bits, interval.seconds += report.seconds;
  ++interval.steps;
  if (report.skipped) return;
  interval.gradient_norm += report.gradient_norm;
  ++interval.applied;
}

double mean_gradient_norm(const Interval& interval) {
  return interval.gradient_norm / static_cast<double>(std::max<int64_t>(1, interval.applied));
}

ProgressOptions progress_options(bool show) {
  ProgressOptions options = progress_on_standard_error();
  if (!show) options.write = [](std::string_view) {};
  return options;
}

class Loop {
 public:
  Loop(PreparedRun& prepared, const MemoryVerdict& memory, const TrainObserver& observer, Leader& leader)
      : leader_(leader),
        prepared_(prepared),
        run_(prepared.directory()),
        config_(prepared.config()),
        observer_(observer),
        splits_(prepared.splits()),
        device_(parse_device(config_.compute.device)),
        memory_before_(memory.before),
        trainer_(config_, splits_, leader.comm()) {
    if (!observer_.note) observer_.note = [](const std::string&) {};
    if (!memory.warning.empty()) observer_.note("warning    " + memory.warning);
    summary_.planned_memory = memory.plan.total();
    summary_.planned_memory += on_gpu() ? kDriverMemory : memory_before_ + kLibraryMemory;
  }

  TrainSummary run() {
    leader_.join(trainer_);
    resume();
    leader_.share(trainer_);
    try {
      return go_on();
    } catch (const InputError&) {
      // The data are gone; what was learnt from them need not be.
      save_last_and_tell();
      throw;
    } catch (const RankLost&) {
      // With a rank that shared the optimizer its share of the moments is gone.
      if (!trainer_.shares_optimizer())
        save_last_and_tell();
      else if (saved_step_ > 0)
        observer_.note(fmt::format(
            "step {} is saved in {}; what came after it went with the rank's share of the optimizer",
            saved_step_, run_));
      throw;
    }
  }

 private:
  TrainSummary go_on() {
    const bool owed = validation_is_owed();
    metrics_.emplace(run_, trainer_.state().step, owed);
    ProgressLine progress(progress_options(observer_.show_progress));
    std::optional<InterruptGuard> interrupts;
    if (observer_.catch_signals) interrupts.emplace();
    bool ended = false;
    if (trainer_.has_stages()) tell(progress, stage_line());
    const int64_t step_bytes = config_.train.batch * config_.model.context;
    if (owed) validate(progress, trainer_.progress() >= 1), settle();
    Interval& interval = trainer_.state().interval;  // a resumed run goes on with its sums
    int64_t memory = 0;
    int64_t looks = 0;
    while (trainer_.progress() < 1 && !ended && !(interrupts && InterruptGuard::requested())) {
      const int64_t stage_began = trainer_.state().stage_step, context = trainer_.stage().model.context;
      const StepReport report = trainer_.step([&](const StepOrder& order) { leader_.tell(order); });
      if (trainer_.state().stage_step != stage_began) {
        forget_best(run_);
        looks = 0;
        watch_.restart();
        tell(progress, stage_line());
      }
      add(interval, report);
      if (!report.spike.empty())
        tell(progress, fmt::format("skipped    step {}: {}; {} so far", report.step, report.spike,
                                   trainer_.state().skipped));
      if (const auto rise = watch_.add(report.bits))
        tell(
            progress,
            fmt::format("warning    step {}: the loss has risen from {:.2f} to {:.2f} bits, the run seems to "
                        "diverge; go on from an earlier checkpoint (--step N) with a lower {} or a longer "
                        "train.warmup",
                        report.step, rise->from, rise->to,
                        config_.train.optimizer == "muon" ? "train.muon_rate and train.learning_rate"
                                                          : "train.learning_rate"));
      summary_.tokens_per_second = static_cast<double>(step_bytes * interval.steps) / interval.seconds;
      summary_.train_bits = interval.bits / static_cast<double>(interval.steps);
      // Asking a GPU takes as long as a step of a small model, and its memory does not change.
      if (!on_gpu() || ++looks <= 2) memory = memory_used();
      summary_.peak_memory = std::max(summary_.peak_memory, memory);
      // With a time budget the number of steps is an estimate.
      const auto total =
          static_cast<int64_t>(std::llround(static_cast<double>(report.step) / trainer_.progress()));
      progress.update(report.step, total, summary_.train_bits, summary_.tokens_per_second,
                      static_cast<double>(memory));
      const bool last = trainer_.progress() >= 1;
      if (report.step % config_.train.log_every == 0 || last) {
        Scalars scalars{{"train/bits", summary_.train_bits},
                        {"train/gradient_norm", mean_gradient_norm(interval)},
                        {"train/learning_rate", report.learning_rate},
                        {"train/tokens_per_second", summary_.tokens_per_second},
                        {"train/context", static_cast<double>(context)},
                        {"train/bytes", static_cast<double>(report.step * step_bytes)},
                        {on_gpu() ? "memory/gpu" : "memory/resident", static_cast<double>(memory)}};
        if (trainer_.model().plan().product == DType::f16) {
          scalars.emplace_back("train/loss_scale", trainer_.state().loss_scale);
        }
        if (trainer_.model().plan().product == DType::f16 || config_.train.skip_spikes > 0)
          scalars.emplace_back("train/skipped_steps", static_cast<double>(trainer_.state().skipped));
        log(report.step, scalars);
        interval = {};
      }
      // First what must not be lost: validation may fail.
      if (due(report.step, config_.train.checkpoint_every) || last || late() ||
          (interrupts && InterruptGuard::take_save_request()))
        save();
      std::optional<double> validation;
      if (due(report.step, config_.train.validate_every) || last) validation = validate(progress, last);
      if (saved_step_ == report.step) settle();
      ended = !goes_on_after(report, validation);
    }
    summary_.complete = trainer_.progress() >= 1;
    save_last();
    progress.finish();
    summary_.state = trainer_.state();
    return summary_;
  }

  // What the next step is trained with.
  std::string stage_line() const {
    const RunConfig& stage = trainer_.stage();
    return fmt::format("step {}: context {}, pattern {}, batch {}", trainer_.state().step + 1,
                       stage.model.context, stage.model.pattern.text(), stage.train.batch);
  }

  void tell(ProgressLine& progress, const std::string& line) {
    if (observer_.show_progress)
      progress.note(line);
    else
      observer_.note(line);
  }

  bool on_gpu() const { return device_.kind == DeviceKind::cuda; }

  int64_t memory_used() const {
    return on_gpu() ? memory_before_ - backend(device_).memory(device_.index).free : resident_memory();
  }

  static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

  void resume() {
    if (prepared_.checkpoint()) trainer_.load(*prepared_.checkpoint());
    const TrainConfig& train = config_.train;
    if (train.schedule == 2 && train.minutes <= 0 && train.warmup >= trainer_.total_steps())
      observer_.note(
          fmt::format("warning    train.warmup = {} of {} steps: the learning rate is still rising when "
                      "the run ends",
                      train.warmup, trainer_.total_steps()));
    check_limits();
    // Nothing that could be refused is left to do.
    prepared_.commit();
    prepare_run_directory(run_);
    if (!prepared_.checkpoint()) return;
    saved_step_ = prepared_.checkpoint()->step();
    prepared_.close_checkpoint();
    discard_checkpoints_after(run_, saved_step_);
    restore_best();
    settle();
    observer_.note(fmt::format("resuming from step {} of {}", trainer_.state().step, trainer_.total_steps()));
  }

  // A limit that a run is beyond already would train nothing, and stand in its config.
  void check_limits() const {
    if (!prepared_.checkpoint()) return;
    const TrainConfig was = read_run_config(run_).train;
    const TrainConfig& is = config_.train;
    const TrainState& state = trainer_.state();
    constexpr const char* kAdvice = "give more, or go on from an earlier checkpoint with --step";
    if (is.steps != was.steps || is.epochs != was.epochs)
      LONGSTRIDE_CHECK(state.step <= trainer_.total_steps(),
                       "{}: {} end at step {}, and it is at step {}; {}", run_,
                       is.epochs > 0 ? fmt::format("train.epochs = {}", is.epochs)
                                     : fmt::format("train.steps = {}", is.steps),
                       trainer_.total_steps(), state.step, kAdvice);
    if (is.minutes != was.minutes && is.minutes > 0)
      LONGSTRIDE_CHECK(state.seconds <= 60 * is.minutes,
                       "{}: train.minutes = {}, and it has taken {:.4g} already; {}", run_, is.minutes,
                       state.seconds / 60, kAdvice);
  }

  // What is best may belong to a course that is left, may not be named yet because a kill came first, or may
  // have been measured with other data.
  void restore_best() {
    TrainState& state = trainer_.state();
    const std::vector<CheckpointInfo> there = list_checkpoints(run_);
    const auto holds = [&](int64_t step) {
      return std::any_of(there.begin(), there.end(), [&](const auto& info) { return info.step == step; });
    };
    if (state.best_step > 0 && !prepared_.validation_changed()) {
      if (holds(state.best_step)) return name_best();
      const auto named = read_best(run_);
      if (named && named->step == state.best_step && published_step(run_) == state.best_step) return;
    }
    state.best_step = state.validated_step = 0;
    state.best_bits = 0;
    forget_best(run_);
  }

  // The loaded step was to be validated, but the session ended before.
  bool validation_is_owed() {
    const int64_t step = trainer_.state().step;
    if (step == 0 || splits_.validation.size() == 0) return false;
    if (trainer_.state().validated_step == step || trainer_.state().best_step == step) return false;
    return due(step, config_.train.validate_every) || trainer_.progress() >= 1 ||
           prepared_.validation_changed();
  }

  bool late() const {
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - saved_at_;
    return config_.train.checkpoint_minutes > 0 && since.count() > 60 * config_.train.checkpoint_minutes;
  }

  bool goes_on_after(const StepReport& report, std::optional<double> validation) {
    if (!observer_.after_step) return true;
    try {
      return observer_.after_step(report, trainer_, validation);
    } catch (...) {
      save_last_and_tell();
      throw;
    }
  }

  // Bits a byte; none without validation data.
  std::optional<double> validate(ProgressLine& progress, bool last) {
    if (splits_.validation.size() == 0) return {};
    leader_.validate(trainer_, config_.train.validate_bytes);
    const Evaluation evaluation = trainer_.validate(config_.train.validate_bytes);
    summary_.validation_bits = evaluation.bits();
    TrainState& state = trainer_.state();
    if (!std::isfinite(evaluation.bits())) {
      // The checkpoints before it are all there still, so that to go on does not begin with this one.
      discard_checkpoints_after(run_, state.step - 1);
      fail("step {}: the validation loss is not finite; the last good checkpoint is kept", state.step);
    }
    log(state.step, {{"validation/bits", evaluation.bits()}});
    const bool better = state.best_step == 0 || evaluation.bits() < state.best_bits;
    state.validated_step = state.step;
    progress.note({state.step, summary_.train_bits, evaluation.bits(), better, last});
    if (better) state.best_bits = evaluation.bits(), state.best_step = state.step;
    // A checkpoint of this step that is there already is only told the outcome.
    if (saved_step_ == state.step) {
      bring_metrics_to_disk();  // once the outcome is there, a resumed run does not validate again
      amend_checkpoint(run_, state.step, state.to_metadata());
    } else if (better) {
      save();
    }
    if (better) name_best();
    return evaluation.bits();
  }

  void name_best() {
    const int64_t step = trainer_.state().best_step;
    mark_best(run_, step, trainer_.state().best_bits);
    publish_model(run_, step);
  }

  void save() {
    const int64_t step = trainer_.state().step;
    bring_metrics_to_disk();
    leader_.collect(trainer_);
    save_checkpoint(run_, step, trainer_.contents());
    trainer_.release();
    saved_step_ = step;
    saved_at_ = std::chrono::steady_clock::now();
  }

  // The lines up to a checkpoint are as safe as itself: a resumed run does not write them again.
  void bring_metrics_to_disk() {
    try {
      if (metrics_) metrics_->bring_to_disk();
    } catch (const Error& error) {
      observer_.note(fmt::format("warning    {}", error.what()));  // the checkpoint is worth more
    }
  }

  // A log that cannot be written ends the run, but what was learnt need not be lost with it.
  void log(int64_t step, const Scalars& scalars) {
    try {
      metrics_->log(step, scalars);
    } catch (const Error&) {
      save_last_and_tell();
      throw;
    }
  }

  void save_last_and_tell() {
    save_last();
    if (saved_step_ > 0) observer_.note(fmt::format("step {} is saved in {}", saved_step_, run_));
  }

  // The state that is reached, unless it is saved already.
  void save_last() {
    if (saved_step_ != trainer_.state().step && trainer_.state().step > 0) save(), settle();
  }

  // After a save, once it is known how good its weights are.
  void settle() {
    if (trainer_.state().best_step == 0) publish_model(run_, saved_step_);
    prune_checkpoints(run_, config_.train.keep_last);
  }

  Leader& leader_;
  PreparedRun& prepared_;
  std::string run_;
  RunConfig config_;
  TrainObserver observer_;
  const Splits& splits_;
  Device device_;
  int64_t memory_before_ = 0;  // of the CPU in use, of a GPU free, before the run takes anything
  Trainer trainer_;
  LossWatch watch_;
  std::optional<MetricsLog> metrics_;
  TrainSummary summary_;
  int64_t saved_step_ = -1;
  std::chrono::steady_clock::time_point saved_at_ = std::chrono::steady_clock::now();
};

}  // namespace

TrainSummary train_run(PreparedRun& prepared, const MemoryVerdict& memory, const TrainObserver& observer,
                       Leader& leader) {
  set_threads(static_cast<int>(prepared.config().compute.threads));
  return Loop(prepared, memory, observer, leader).run();
}

TrainSummary train_run(PreparedRun& prepared, const MemoryVerdict& memory, const TrainObserver& observer) {
  Leader leader(no_others());
  return train_run(prepared, memory, observer, leader);
}

TrainSummary train_run(const std::string& run, const RunConfig& config, int64_t from_step,
                       const TrainObserver& observer) {
  set_threads(static_cast<int>(config.compute.threads));
  std::optional<RunLock> lock = lock_existing_run(run, observer.note);
  PreparedRun prepared({run, config, from_step}, std::move(lock), observer.note);
  return train_run(prepared, check_training_memory(config), observer);
}

}  // namespace longstride
