#include "longstride/train/trainer.h"

#include <chrono>
#include <cmath>
#include <numbers>

#include "longstride/base/text.h"
#include "longstride/train/schedule.h"

namespace longstride {

namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

ComputePlan compute_plan(const RunConfig& config) {
  ComputePlan plan;
  plan.device = parse_device(config.compute.device);
  plan.product = product_precision(config.compute, plan.device);
  plan.batch = config.train.micro();
  plan.training = true;
  plan.recompute = config.train.activations == "recompute";
  return plan;
}

int64_t steps_of(const TrainConfig& train, const BatchLoader& loader) {
  if (train.epochs <= 0) return train.steps;
  const double windows = train.epochs * static_cast<double>(loader.windows_per_epoch());
  return std::max<int64_t>(1, std::llround(windows / static_cast<double>(train.batch)));
}
}  // namespace

std::map<std::string, std::string> TrainState::to_metadata() const {
  // {:a} keeps every bit of a double.
  return {{"train.step", fmt::format("{}", step)},
          {"train.seconds", fmt::format("{:a}", seconds)},
          {"train.best_bits", fmt::format("{:a}", best_bits)},
          {"train.best_step", fmt::format("{}", best_step)}};
}

TrainState TrainState::from_metadata(const std::map<std::string, std::string>& metadata) {
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    LONGSTRIDE_CHECK(found != metadata.end(),
                     "the checkpoint's state lacks {}; it was not written by training", key);
    return found->second;
  };
  TrainState state;
  state.step = parse_integer(value("train.step"), "train.step");
  state.seconds = std::strtod(value("train.seconds").c_str(), nullptr);
  state.best_bits = std::strtod(value("train.best_bits").c_str(), nullptr);
  state.best_step = parse_integer(value("train.best_step"), "train.best_step");
  return state;
}

Trainer::Trainer(const RunConfig& config, const Splits& splits)
    : config_(config),
      validation_(splits.validation),
      loader_(splits.train, config.model.context, config.train.batch,
              static_cast<uint64_t>(config.train.seed)) {
  const ComputePlan plan = compute_plan(config);
  optimizer_ = std::make_unique<Optimizer>(config, plan.device, plan.product);
  model_ = std::make_unique<Transformer>(config.model, plan);
  total_steps_ = steps_of(config.train, loader_);
  const auto lay_out = [&](Arena& arena) {
    tokens_ = arena.allocate(DType::u8, {config.train.batch, config.model.context});
    loss_ = arena.allocate(DType::f32, {config.train.micro(), config.model.context});
  };
  Arena measure = Arena::measuring(plan.device);
  lay_out(measure);
  tokens_arena_ = Arena(plan.device, measure.peak());
  lay_out(tokens_arena_);
}

double Trainer::progress() const {
  double part = static_cast<double>(state_.step) / static_cast<double>(total_steps_);
  if (config_.train.minutes > 0) part = std::max(part, state_.seconds / (60 * config_.train.minutes));
  return std::min(part, 1.0);
}

StepReport Trainer::step() {
  const Clock::time_point start = Clock::now();
  const TrainConfig& train = config_.train;
  StepReport report;
  report.step = state_.step + 1;
  loader_.load(state_.step, tokens_.as<uint8_t>());
  optimizer_->zero_gradients();

  const int64_t micro = train.micro(), parts = train.batch / micro;
  const double count = static_cast<double>(tokens_.count());
  double nats = 0;
  for (int64_t part = 0; part < parts; ++part) {
    // One dropout step a micro-batch, so that no two sequences share a mask.
    const auto dropout_step = static_cast<uint32_t>(state_.step * parts + part);
    model_->forward_backward(optimizer_->parameters(), tokens_.rows(part * micro, (part + 1) * micro),
                             static_cast<float>(1.0 / count), train.dropout,
                             static_cast<uint64_t>(train.seed), dropout_step, loss_, optimizer_->gradients());
    const float* losses = loss_.as<float>();
    for (int64_t i = 0; i < loss_.count(); ++i) nats += losses[i];
  }
  report.bits = nats / count / std::numbers::ln2;
  report.gradient_norm = optimizer_->gradient_norm();
  if (!std::isfinite(report.bits) || !std::isfinite(report.gradient_norm))
    fail(
        "step {}: the {} is not finite; nothing of this step was kept. Go on from the last checkpoint with a "
        "lower "
        "train.learning_rate or a longer train.warmup",
        report.step, std::isfinite(report.bits) ? "gradient" : "loss");

  const double clip = train.clip > 0 ? std::min(1.0, train.clip / (report.gradient_norm + 1e-12)) : 1.0;
  report.learning_rate = learning_rate(train, report.step, total_steps_, progress());
  optimizer_->step(report.step, report.learning_rate, clip);
  state_.step = report.step;
  report.seconds = seconds_since(start);
  state_.seconds += report.seconds;
  return report;
}

Evaluation Trainer::validate(int64_t max_bytes) {
  Evaluation result;
  optimizer_->with_evaluation_weights([&](const ModelParameters& parameters) {
    result = evaluate_bytes(*model_, parameters, validation_.bytes(), validation_.corpus->record_bytes(), 0,
                            max_bytes, {});
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
  load_into(checkpoint.model(), "", optimizer_->model_tensors());
  load_into(checkpoint.state(), "", optimizer_->state_tensors());
  optimizer_->loaded();
  state_ = TrainState::from_metadata(checkpoint.metadata());
}

MemoryPlan Trainer::memory() const {
  return plan_memory(config_.model, model_->plan(), config_.train.average > 0);
}

}  // namespace longstride
