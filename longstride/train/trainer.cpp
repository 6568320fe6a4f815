#include "longstride/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <numbers>

#include "longstride/base/input_file.h"
#include "longstride/base/text.h"
#include "longstride/ops/profile.h"
#include "longstride/train/memory.h"
#include "longstride/train/schedule.h"
#include "longstride/train/verified_step.h"

namespace longstride {

namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Dynamic loss scaling as in the paper's released code: a slow growth that every overflow halves.
namespace loss_scale {
constexpr double kGrowth = 1.0003466, kBackoff = 0.5, kLeast = 1024;
constexpr int64_t kMostOverflows = 50;  // in a row: lower scales do not help any more
}  // namespace loss_scale

// The block that goes to the device and back.
struct Exchange {
  int64_t step_at = 0, tokens_at = 0, bytes = 0;
};

Exchange exchange_of(const RunConfig& config, int ranks) {
  const auto aligned = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  Exchange e;
  e.step_at = aligned(sizeof(UpdateControl));
  e.tokens_at = aligned(e.step_at + static_cast<int64_t>(sizeof(uint32_t)));
  e.bytes = e.tokens_at + config.train.batch / batch_parts(config, ranks) * config.model.context;
  return e;
}
}  // namespace

std::map<std::string, std::string> TrainState::to_metadata() const {
  // {:a} keeps every bit of a double.
  std::map<std::string, std::string> metadata{
      {"train.step", fmt::format("{}", step)},
      {"train.seconds", fmt::format("{:a}", seconds)},
      {"train.best_bits", fmt::format("{:a}", best_bits)},
      {"train.best_step", fmt::format("{}", best_step)},
      {"train.loss_scale", fmt::format("{:a}", loss_scale)},
      {"train.skipped", fmt::format("{}", skipped)},
      {"train.validated_step", fmt::format("{}", validated_step)},
      {"train.warmup_seconds", fmt::format("{:a}", warmup_seconds)},
      {"train.context", fmt::format("{}", context)},
      {"train.pattern", pattern},
      {"train.stage_step", fmt::format("{}", stage_step)},
      {"train.interval.bits", fmt::format("{:a}", interval.bits)},
      {"train.interval.gradient_norm", fmt::format("{:a}", interval.gradient_norm)},
      {"train.interval.seconds", fmt::format("{:a}", interval.seconds)},
      {"train.interval.steps", fmt::format("{}", interval.steps)},
      {"train.interval.applied", fmt::format("{}", interval.applied)}};
  // Only runs that skip steps have these.
  if (const std::string recent = losses.to_text(); !recent.empty() || skips_in_row > 0) {
    metadata["train.recent_losses"] = recent;
    metadata["train.skips_in_row"] = fmt::format("{}", skips_in_row);
  }
  return metadata;
}

TrainState TrainState::from_metadata(const std::map<std::string, std::string>& metadata) {
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    LONGSTRIDE_CHECK(found != metadata.end(),
                     "the checkpoint's state lacks {}; it was not written by training", key);
    return found->second;
  };
  const auto whole = [&](const char* key, int64_t most) {
    const int64_t number = parse_whole_number(value(key), std::string("the checkpoint's state: ") + key);
    LONGSTRIDE_CHECK(number <= most, "the checkpoint's state: {} is {}, more than {}", key, number, most);
    return number;
  };
  const auto positive = [&](const char* key) {
    const double number = parse_exact_number(value(key), std::string("the checkpoint's state: ") + key);
    LONGSTRIDE_CHECK(number >= 0, "the checkpoint's state: {} is {}, must not be negative", key, number);
    return number;
  };
  TrainState state;
  state.step = whole("train.step", kMostSteps);
  state.seconds = positive("train.seconds");
  state.best_bits = positive("train.best_bits");
  state.best_step = whole("train.best_step", state.step);
  // Older runs have none of these.
  if (!metadata.contains("train.loss_scale")) return state;
  state.loss_scale = positive("train.loss_scale");
  state.skipped = whole("train.skipped", state.step);
  if (!metadata.contains("train.validated_step")) return state;
  state.validated_step = whole("train.validated_step", state.step);
  state.warmup_seconds = positive("train.warmup_seconds");
  state.interval = {positive("train.interval.bits"), positive("train.interval.gradient_norm"),
                    positive("train.interval.seconds"), whole("train.interval.steps", state.step),
                    whole("train.interval.applied", state.step)};
  if (metadata.contains("train.recent_losses")) {
    state.losses = SpikeWatch::from_text(value("train.recent_losses"));
    state.skips_in_row = whole("train.skips_in_row", state.step);
  }
  if (!metadata.contains("train.stage_step")) return state;
  state.context = whole("train.context", int64_t{1} << 30);
  state.pattern = value("train.pattern");
  state.stage_step = whole("train.stage_step", state.step);
  return state;
}

Trainer::Trainer(const RunConfig& config, const Splits& splits, Comm& comm)
    : comm_(comm),
      config_(for_ranks(config, comm.size())),
      stages_(stages_of(config_)),
      validation_(splits.validation),
      loader_(splits.train, config.model.context, config.train.batch,
              static_cast<uint64_t>(config.train.seed)) {
  const ComputePlan plan = training_plan(config_);
  optimizer_ = std::make_unique<Optimizer>(config_, plan.device, plan.product, comm.size(), comm.rank());
  total_steps_ = longstride::total_steps(config.train, loader_.windows_per_epoch());
  build_stage(0);
  state_.context = stage().model.context;
  state_.pattern = stage().model.pattern.text();
}

void Trainer::build_stage(int64_t index) {
  const RunConfig& config = stages_.at(static_cast<size_t>(index)).config;
  graph_.reset();
  has_run_ = false;
  room_.reset();
  model_.reset();
  staging_ = {};
  loss_ = {};
  loss_arena_ = Arena::measuring({});
  stage_ = index;
  ComputePlan plan = training_plan(config);
  const auto sharing = static_cast<int>(plan.sequence.parts);
  plan.sequence.index = comm_.rank() % sharing;
  plan.sequence.first_rank = comm_.rank() / sharing * sharing;
  plan.sequence.devices = &devices_;
  model_ = std::make_unique<Transformer>(config.model, plan);
  room_ = std::make_unique<BatchRoom>(*model_);
  room_->wait_by([this] {
    if (sum_) sum_->wait();
  });
  const Exchange exchange = exchange_of(config, comm_.size());
  step_at_ = exchange.step_at, tokens_at_ = exchange.tokens_at;
  staging_ = Staging(plan.device, exchange.bytes);
  const int64_t micro = config.train.micro();
  Arena measure = Arena::measuring(plan.device);
  measure.allocate(DType::f32, {micro, config.model.context});
  loss_arena_ = Arena(plan.device, measure.peak());
  loss_ = loss_arena_.allocate(DType::f32, {micro, config.model.context});
}

void Trainer::follow_stages() {
  // A run that is made longer stays in the stage that it has reached.
  const int64_t due = std::max(stage_, stage_at(stages_, progress()));
  if (due != stage_) build_stage(due);
  const ModelConfig& model = stage().model;
  if (state_.context == model.context && state_.pattern == model.pattern.text()) return;
  state_.context = model.context, state_.pattern = model.pattern.text();
  state_.stage_step = state_.step;
  // Losses of different stages cannot be compared.
  state_.best_bits = 0, state_.best_step = state_.validated_step = 0;
  state_.losses.restart();
}

double Trainer::progress() const {
  double part = static_cast<double>(state_.step) / static_cast<double>(total_steps_);
  if (config_.train.minutes > 0) part = std::max(part, state_.seconds / (60 * config_.train.minutes));
  return std::min(part, 1.0);
}

double Trainer::warmup_end() const {
  const TrainConfig& train = config_.train;
  const double by_steps =
      static_cast<double>(warmup_steps(train, total_steps_)) / static_cast<double>(total_steps_);
  const double by_time = train.minutes > 0 ? state_.warmup_seconds / (60 * train.minutes) : 0;
  return std::min(1.0, std::max(by_steps, by_time));
}

// The whole step as work of the device, without a wait.
void Trainer::queue_step() const {
  auto* control = reinterpret_cast<UpdateControl*>(staging_.device());
  staging_.upload(0, staging_.bytes());
  if (comm_.size() == 1) {
    queue_batch();
  } else {
    std::string error;
    try {
      queue_batch();
    } catch (const std::exception& failure) {
      error = failure.what();
    }
    try {
      agree(comm_, error);
      sum_->finish(control);
    } catch (...) {
      sum_->abandon();
      throw;
    }
  }
  optimizer_->update(control);
  staging_.download(0, sizeof(UpdateControl));
}

// Gradients and losses of this rank's sequences.
void Trainer::queue_batch() const {
  const TrainConfig& train = stage().train;
  const Device device = model_->plan().device;
  const int64_t micro = train.micro(), parts = share() / micro, first = batch_part() * share();
  char* base = static_cast<char*>(staging_.device());
  auto* control = reinterpret_cast<UpdateControl*>(base);
  const Tensor tokens(base + tokens_at_, DType::u8, {share(), stage().model.context}, device.kind);
  const OpContext context{device, nullptr};
  TrainingPass pass;
  pass.scale = static_cast<float>(1.0 / static_cast<double>(train.batch * stage().model.context));
  if (model_->plan().product == DType::f16)
    pass.loss_scale = Tensor(&control->loss_scale, DType::f32, {1}, device.kind);
  pass.dropout = train.dropout;
  pass.seed = static_cast<uint64_t>(train.seed);
  pass.step_from = reinterpret_cast<const uint32_t*>(base + step_at_);

  for (int64_t part = 0; part < parts; ++part) {
    pass.first_sequence = first + part * micro;
    const bool added = part > 0;
    // Where a rank has one part alone, its gradients travel while the backward pass goes on.
    if (sum_ && parts == 1)
      pass.block_done = [this](int64_t layer) {
        sum_->ready(optimizer_->block_begin(layer), optimizer_->block_begin(layer + 1));
      };
    model_->forward_backward(optimizer_->parameters(), tokens.rows(part * micro, (part + 1) * micro), pass,
                             loss_, added ? optimizer_->part_gradients() : optimizer_->gradients());
    if (added) optimizer_->add_part();
    run(context, AddLosses{loss_, control});
  }
  if (!sum_) return;
  const int64_t blocks = optimizer_->block_begin(0),
                blocks_end = optimizer_->block_begin(config_.model.layers),
                count = optimizer_->flat_gradients().count();
  sum_->ready(blocks_end, count);
  if (parts > 1) sum_->ready(blocks, blocks_end);
  sum_->ready(0, blocks);
}

StepReport Trainer::step(const Tell& tell) {
  const Clock::time_point start = Clock::now();
  const TrainConfig& train = stage().train;
  const bool f16 = model_->plan().product == DType::f16;
  const int64_t number = state_.step + 1;
  const double rate = learning_rate(train, number, total_steps_, progress(), warmup_end());
  StepOrder order{.stage = stage_, .step = state_.step, .control = {}};
  order.control.adam = optimizer_->adam(number - state_.skipped, rate);
  order.control.muon = optimizer_->muon(muon_rate(train, number, total_steps_, progress(), warmup_end()));
  order.control.clip = train.clip;
  const bool skips = train.skip_spikes > 0;
  if (skips)
    order.control.most_losses = state_.losses.limit(train.skip_spikes) * std::numbers::ln2 *
                                static_cast<double>(train.batch * stage().model.context);
  if (f16) order.control.loss_scale = static_cast<float>(state_.loss_scale);
  if (tell) tell(order);
  StepReport report = judge(order, run_due_step(order));
  report.learning_rate = rate;
  const bool overflow = report.skipped && report.spike.empty();
  overflows_in_row_ = overflow ? overflows_in_row_ + 1 : 0;
  LONGSTRIDE_CHECK(
      overflows_in_row_ < loss_scale::kMostOverflows,
      "step {}: the gradients overflowed f16 in {} steps in a row; go on from the last checkpoint "
      "with compute.precision = \"bf16\" or a lower train.learning_rate",
      report.step, overflows_in_row_);
  const int64_t in_row = report.spike.empty() ? 0 : state_.skips_in_row + 1;
  LONGSTRIDE_CHECK(
      in_row < train.most_skips,
      "step {}: {}; skipped in a row: {} (train.most_skips), so that the data or the rate are "
      "at fault, not single batches. Go on from the last checkpoint with a lower train.learning_rate or "
      "{}, or a larger train.skip_spikes",
      report.step, report.spike, in_row,
      train.optimizer == "muon" ? "train.muon_rate" : "a longer train.warmup");
  state_.skips_in_row = in_row;
  if (skips && !report.skipped) state_.losses.add(report.bits);
  if (!std::isfinite(report.bits)) report.bits = state_.losses.middle();
  if (f16 && report.spike.empty())
    state_.loss_scale = report.skipped
                            ? std::max(loss_scale::kLeast, state_.loss_scale * loss_scale::kBackoff)
                            : state_.loss_scale * loss_scale::kGrowth;
  state_.skipped += report.skipped ? 1 : 0;
  state_.step = report.step;
  report.seconds = seconds_since(start);
  state_.seconds += report.seconds;
  if (state_.step == warmup_steps(train, total_steps_)) state_.warmup_seconds = state_.seconds;
  follow_stages();
  return report;
}

void Trainer::take(const StepOrder& order) {
  // A failure must not leave the others waiting for this rank.
  std::string error;
  try {
    if (order.stage != stage_) build_stage(order.stage);
  } catch (const std::exception& failure) {
    error = failure.what();
  }
  state_.step = judge(order, run_due_step(order, error)).step;
}

UpdateControl Trainer::run_due_step(const StepOrder& order, std::string error) {
  const int64_t number = order.step + 1;
  if (!is_verified(config_.train, number)) return run_step(order, std::move(error));
  return take_twice(*optimizer_, comm_, number, [&] { return run_step(order, error); });
}

UpdateControl Trainer::run_step(const StepOrder& order, std::string error) {
  if (!error.empty()) agree(comm_, error);  // throws
  LONGSTRIDE_CHECK(comm_.size() == 1 || sum_, "the ranks were not joined before the first step");
  char* base = static_cast<char*>(staging_.host());
  auto* control = reinterpret_cast<UpdateControl*>(base);
  *control = order.control;
  *reinterpret_cast<uint32_t*>(base + step_at_) = static_cast<uint32_t>(order.step);
  auto* tokens = reinterpret_cast<uint8_t*>(base + tokens_at_);
  const auto load = [&] {
    loader_.load_pieces(order.step, stages_[stage_].pieces, batch_part() * share(), share(), tokens);
  };
  if (comm_.size() == 1) {
    load();
  } else {
    // Data that one rank cannot read end the step on all of them.
    try {
      load();
    } catch (const std::exception& failure) {
      error = failure.what();
    }
    try {
      agree(comm_, error);
    } catch (const RankLost&) {
      throw;  // nothing is wrong with the data
    } catch (const Error& failure) {
      throw InputError(failure.what());
    }
  }

  // A graph needs a step before it, in which libraries choose their kernels; a profile needs every op.
  if (!backend(model_->plan().device).has_graphs() || !has_run_ || profiling_ops()) {
    queue_step();
  } else {
    if (!graph_) graph_ = backend(model_->plan().device).record([this] { queue_step(); });
    graph_->launch();
  }
  if (sum_) {
    try {
      sum_->wait();
    } catch (const RankLost&) {
      graph_.reset();  // there will be no other step
      throw;
    }
  }
  staging_.wait();
  has_run_ = true;
  return *control;
}

StepReport Trainer::judge(const StepOrder& order, const UpdateControl& done) const {
  const double tokens = static_cast<double>(stage().train.batch * stage().model.context);
  StepReport report;
  report.step = order.step + 1;
  report.bits = done.losses / tokens / std::numbers::ln2;
  report.gradient_norm = done.norm;
  report.skipped = done.applied == 0;
  const bool f16 = model_->plan().product == DType::f16;
  const bool overflow = f16 && std::isfinite(report.bits) && !std::isfinite(report.gradient_norm);
  if (report.skipped && !overflow && stage().train.skip_spikes > 0) {
    report.spike = !std::isfinite(report.bits) ? "the loss is not finite"
                   : !std::isfinite(report.gradient_norm)
                       ? "the gradient is not finite"
                       : fmt::format("a loss of {:.4f} bits, above {:.4f}", report.bits,
                                     order.control.most_losses / tokens / std::numbers::ln2);
    return report;
  }
  if (report.skipped && !overflow)
    fail(
        "step {}: the {} is not finite; nothing of this step was kept. Go on from the last checkpoint with a "
        "lower train.learning_rate or a longer train.warmup",
        report.step, std::isfinite(report.bits) ? "gradient" : "loss");
  return report;
}

void Trainer::join_ranks() {
  if (comm_.size() == 1) return;
  const Device device = model_->plan().device;
  devices_ = join_devices(comm_, device);
  sum_ = gradient_sum(comm_, devices_, device, optimizer_->flat_gradients(), optimizer_->share_begins());
  optimizer_->join(devices_, [this] { sum_->wait(); });
}

void Trainer::share_weights() {
  const Device device = model_->plan().device;
  std::vector<std::vector<NamedTensor>> everywhere;
  if (shares_optimizer()) {
    optimizer_->distribute(comm_);
    everywhere = {optimizer_->weights()};
  } else {
    everywhere = {optimizer_->model_tensors(), optimizer_->state_tensors()};
  }
  for (const std::vector<NamedTensor>& tensors : everywhere)
    for (const NamedTensor& named : tensors) {
      const int64_t bytes = named.tensor.bytes();
      if (device.kind == DeviceKind::cpu) {
        comm_.broadcast(named.tensor.data, bytes);
        continue;
      }
      const Buffer here({}, bytes);
      if (comm_.rank() == 0) backend(device).copy(here.data(), named.tensor.data, bytes);
      comm_.broadcast(here.data(), bytes);
      if (comm_.rank() > 0) backend(device).copy(named.tensor.data, here.data(), bytes);
    }
  optimizer_->loaded();
}

Evaluation Trainer::validate(int64_t max_bytes) {
  Evaluation result;
  optimizer_->with_evaluation_weights([&](const ModelParameters& parameters) {
    if (comm_.rank() > 0 && !shares_sequences()) return;  // it was there for its averages
    try {
      result = evaluate_segment(*room_, parameters, validation_, 0, max_bytes, {});
    } catch (const RankLost&) {
      graph_.reset();  // there will be no other step
      throw;
    }
  });
  return result;
}

CheckpointContents Trainer::contents() const {
  LONGSTRIDE_CHECK(
      optimizer_->finite(),
      "step {}: a weight is not finite; this state was not saved. Go on from the last checkpoint with a "
      "lower train.learning_rate or a longer train.warmup",
      state_.step);
  return {.model = optimizer_->model_tensors(),
          .state = optimizer_->state_tensors(),
          .metadata = state_.to_metadata(),
          .model_metadata = {}};
}

void Trainer::load(const OpenCheckpoint& checkpoint) {
  if (shares_optimizer()) optimizer_->make_room();
  load_into(checkpoint.model(), "", optimizer_->model_tensors());
  load_into(checkpoint.state(), "", optimizer_->state_tensors());
  optimizer_->loaded();
  state_ = TrainState::from_metadata(checkpoint.metadata());
  if (state_.context == 0)
    state_.context = config_.model.context, state_.pattern = config_.model.pattern.text();
  LONGSTRIDE_CHECK(
      state_.step == checkpoint.step(),
      "{} holds the state of step {}: the folder was copied or renamed; remove it, or give it back the "
      "name of its step",
      checkpoint.path(), state_.step);
  // The stage that was reached, also where the run has become longer since.
  int64_t reached = stage_at(stages_, progress());
  for (int64_t i = reached + 1; i < static_cast<int64_t>(stages_.size()); ++i)
    if (stages_[i].config.model.context == state_.context &&
        stages_[i].config.model.pattern.text() == state_.pattern)
      reached = i;
  if (reached != stage_) build_stage(reached);
  follow_stages();
}

MemoryPlan Trainer::memory() const { return training_memory(config_, comm_.size()); }

int64_t Trainer::exchange_bytes(const RunConfig& config, int ranks) {
  const int64_t micro = config.train.micro(), context = config.model.context;
  return exchange_of(config, ranks).bytes + micro * context * size_of(DType::f32) +
         BatchRoom::bytes(micro, context);
}

}  // namespace longstride
