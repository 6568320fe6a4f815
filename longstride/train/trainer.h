// Training: one step, and the loop around it with validation, checkpoints, metrics and a clean end.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "longstride/data/batches.h"
#include "longstride/data/corpus.h"
#include "longstride/device/backend.h"
#include "longstride/device/staging.h"
#include "longstride/dist/comm.h"
#include "longstride/eval/evaluate.h"
#include "longstride/model/transformer.h"
#include "longstride/run/prepared_run.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/stages.h"
#include "longstride/train/gradient_sum.h"
#include "longstride/train/memory.h"
#include "longstride/train/optimizer.h"
#include "longstride/train/spike_watch.h"

namespace longstride {

// What one optimizer step did.
struct StepReport {
  int64_t step = 0;
  double bits = 0;           // mean training loss, bits a byte
  double gradient_norm = 0;  // before clipping
  bool skipped = false;      // weights stayed
  // Why, with train.skip_spikes. If it is empty, gradients of f16 overflowed and the loss scale was halved.
  std::string spike = {};
  double learning_rate = 0;
  double seconds = 0;
};

// Sums since the last line of metrics.
struct Interval {
  double bits = 0, gradient_norm = 0, seconds = 0;
  int64_t steps = 0, applied = 0;
};

// How far a run is. Saved with every checkpoint.
struct TrainState {
  int64_t step = 0;      // finished optimizer steps
  double seconds = 0;    // spent training, over all sessions
  double best_bits = 0;  // lowest validation so far; 0: none yet
  int64_t best_step = 0;
  double loss_scale = 65536;   // of f16: what gradients are multiplied with
  int64_t skipped = 0;         // steps after which nothing had changed
  int64_t validated_step = 0;  // the last that was validated
  int64_t context = 0;         // of the stage that the run is in; 0: the model's, in older states
  std::string pattern;         // likewise
  int64_t stage_step = 0;      // finished steps when that stage began
  double warmup_seconds = 0;   // of `seconds`, when the warm-up was over; 0: it is not
  // With train.skip_spikes: skipped steps in a row, and which losses are usual.
  int64_t skips_in_row = 0;
  SpikeWatch losses;
  Interval interval;

  std::map<std::string, std::string> to_metadata() const;
  // Throws Error for what is missing or is no such number.
  static TrainState from_metadata(const std::map<std::string, std::string>& metadata);
};

// What rank 0 tells the others of a step: all that is decided by a clock or a state.
struct StepOrder {
  int64_t stage = 0, step = 0;
  UpdateControl control;
};

// Everything that a step needs. A Trainer made anew and loaded from a checkpoint goes on with the very bits
// that the uninterrupted one would have computed, given the same number of threads.
class Trainer {
 public:
  // As one of several ranks it takes its part of each batch, and all ranks take the same step. `comm` must
  // outlive it.
  Trainer(const RunConfig& config, const Splits& splits, Comm& comm = no_others());

  // Steps that the run has in all.
  int64_t total_steps() const { return total_steps_; }
  // The part of the run that is over, by steps or, with train.minutes, by time, whichever is further; 1 is
  // the end.
  double progress() const;

  // The configuration of the stage that the run is in.
  const RunConfig& stage() const { return stages_[stage_].config; }
  bool has_stages() const { return stages_.size() > 1; }
  // One optimizer step, on rank 0. `tell` passes on what the other ranks are to do with take(). The next stage begins after the step that brings the run there: stage() has changed
  // then, and there is no best any more. Throws Error, with weights and state as they were before, if loss or
  // gradients are not finite; with f16 overflowing gradients, and with train.skip_spikes all that is skipped, are an
  // error only after many in a row.
  using Tell = std::function<void(const StepOrder&)>;
  StepReport step(const Tell& tell = {});
  // The same step on the other ranks. Throws Error where step() does.
  void take(const StepOrder& order);
  // Before the first step of several ranks, by all of them: joins their devices. Throws Error on all of them if
  // that cannot be.
  void join_ranks();
  // Makes weights, moments and averages of all ranks those of rank 0, which has loaded them.
  void share_weights();

  // Whether ranks share sequences: then all of them validate together.
  bool shares_sequences() const { return config_.compute.sequence_ranks > 1; }
  // Whether all ranks take part in a validation.
  bool validates_together() const { return shares_sequences() || optimizer_->shares_average(); }
  // Whether ranks share the optimizer: then rank 0 alone cannot say what a checkpoint holds, and all ranks call
  // collect() before contents().
  bool shares_optimizer() const { return optimizer_->shares().is_shared(); }
  void collect() { optimizer_->collect(); }
  // Validation with the weights that a checkpoint would hold; max_bytes 0 = all.
  Evaluation validate(int64_t max_bytes);

  // What a checkpoint holds; of ranks that share the optimizer what was collected, until release(). Throws Error if a weight is not finite: such a state is not worth keeping.
  CheckpointContents contents() const;
  void release() { optimizer_->free_room(); }
  void load(const OpenCheckpoint& checkpoint);

  TrainState& state() { return state_; }
  const TrainState& state() const { return state_; }
  const Transformer& model() const { return *model_; }
  MemoryPlan memory() const;
  // Device bytes of the staging blocks of a training step and a validation.
  static int64_t exchange_bytes(const RunConfig& config, int ranks = 1);

 private:
  // Makes all that the shapes of a stage decide, once that of the stage before is freed.
  void build_stage(int64_t stage);
  // Goes to the stage that is due.
  void follow_stages();
  void queue_step() const;
  void queue_batch() const;
  // Runs the step on this rank's part of the batch; returns what was decided. `error` is why this rank cannot
  // take part, or empty; throws Error on all ranks if one cannot.
  UpdateControl run_step(const StepOrder& order, std::string error = {});
  // The same, twice where it is to be verified.
  UpdateControl run_due_step(const StepOrder& order, std::string error = {});
  // Throws Error if the step may not be kept.
  StepReport judge(const StepOrder& order, const UpdateControl& done) const;
  // Sequences of a step that this rank takes.
  int64_t share() const { return stage().train.batch / batch_parts(config_, comm_.size()); }
  // Which part of the batch that is.
  int64_t batch_part() const { return comm_.rank() / config_.compute.sequence_ranks; }
  // The part of the run that is over when the warm-up ends.
  double warmup_end() const;

  Comm& comm_;
  RunConfig config_;
  std::vector<Stage> stages_;
  int64_t stage_ = 0;
  Segment validation_;
  BatchLoader loader_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Transformer> model_;
  // For validation, which must not fail for want of memory hours into a run.
  std::unique_ptr<BatchRoom> room_;
  // What goes to the device each step and comes back: an UpdateControl, the dropout step of each micro-batch,
  // the tokens.
  Staging staging_;
  int64_t step_at_ = 0, tokens_at_ = 0;  // in bytes
  Arena loss_arena_ = Arena::measuring({});
  Tensor loss_;  // (micro-batch, context)
  // Of several ranks, once they are joined.
  std::shared_ptr<DeviceComm> devices_;
  std::unique_ptr<GradientSum> sum_;
  // On a GPU: the whole step, recorded once it has run. Goes before what it was recorded from.
  std::unique_ptr<Graph> graph_;
  bool has_run_ = false;
  int64_t overflows_in_row_ = 0;
  TrainState state_;
  int64_t total_steps_ = 0;
};

class Leader;

struct TrainObserver {
  std::function<void(const std::string&)> note;  // a line for people
  bool show_progress = true;
  // Called after each step and what belongs to it, with the validation if there was one; false ends the run as
  // a signal does. What it throws comes out of train_run() once the last state is saved.
  std::function<bool(const StepReport&, const Trainer&, std::optional<double> validation_bits)> after_step =
      {};
  bool catch_signals = true;  // SIGINT and the like end the run after the step, and SIGUSR1 saves
};

struct TrainSummary {
  TrainState state;
  bool complete = false;                        // false: interrupted
  double train_bits = 0;                        // mean of the last metrics interval
  std::optional<double> validation_bits;        // the last of this session
  double tokens_per_second = 0;                 // of the last metrics interval
  int64_t planned_memory = 0, peak_memory = 0;  // of the device that trains
};

// Trains the run to its end, or until SIGINT or SIGTERM, which saves and returns. Goes on from the prepared
// checkpoint (later ones are discarded), if there is one. Throws Error; whatever was saved before stays.
TrainSummary train_run(PreparedRun& prepared, const MemoryVerdict& memory, const TrainObserver& observer);
// The same as rank 0 of several (train/ranks.h).
TrainSummary train_run(PreparedRun& prepared, const MemoryVerdict& memory, const TrainObserver& observer,
                       Leader& leader);

// The same with a run that is prepared here: `run` is begun if it is not there, and else gone on with from
// the checkpoint of `from_step`, or if that is negative from the newest intact one.
TrainSummary train_run(const std::string& run, const RunConfig& config, int64_t from_step,
                       const TrainObserver& observer);

}  // namespace longstride
