#include <algorithm>
#include <cmath>

#include "longstride/base/check.h"
#include "longstride/decode/decoder.h"
#include "longstride/eval/evaluate.h"
#include "longstride/facade/model_state.h"
#include "longstride/longstride.h"
#include "longstride/model/parameters.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/gpu_room.h"

namespace longstride {

namespace {

constexpr int64_t kBatchRows = 8192;  // positions that an evaluation takes at a time

ComputeConfig compute_of(const std::string& run, const LoadOptions& options) {
  LONGSTRIDE_CHECK(options.threads >= 0, "threads = {}, must not be negative; 0 = as many as there are",
                   options.threads);
  LONGSTRIDE_CHECK(options.step >= -1, "step = {}, must be that of a checkpoint, or -1 for the best",
                   options.step);
  ComputeConfig compute = read_run_config(run).compute;
  compute.device = options.device;
  compute.precision = options.precision;
  compute.threads = options.threads;
  return compute;
}

ModelState load(const std::string& run, const LoadOptions& options) {
  const ComputeConfig compute = compute_of(run, options);
  const AtWork work({}, compute.threads);
  return {LoadedModel(run, compute, {.step = options.step, .int8 = options.int8})};
}

void check_room(Device device, int64_t bytes, const char* what) {
  check_gpu_room(device, bytes, what, "give it fewer bytes, or use the device cpu");
  check_cpu_room(device, bytes, what, "give it fewer bytes, or free some memory");
}

// One sequence of up to `positions` bytes.
std::unique_ptr<Decoder> decoder_for(const LoadedModel& loaded, int64_t positions) {
  const ModelConfig& config = loaded.config().model;
  DecoderOptions options;
  options.positions = std::clamp<int64_t>(positions, 1, config.context);
  check_room(loaded.device(), Decoder::bytes(config, loaded.device(), loaded.product(), options), "logits");
  return std::make_unique<Decoder>(config, loaded.parameters(), loaded.device(), options, loaded.quantized());
}

}  // namespace

std::string version() { return LONGSTRIDE_VERSION; }

Model::Model(const std::string& run, const LoadOptions& options)
    : state_(std::make_shared<const ModelState>(load(run, options))) {}

Model::Model(std::shared_ptr<const ModelState> state) : state_(std::move(state)) {}

int64_t Model::context() const { return state_->config().context; }
int64_t Model::parameters() const { return count_parameters(state_->config()); }
int64_t Model::step() const { return state_->loaded.step(); }
std::string Model::kind() const { return state_->loaded.config().data.kind; }
std::string Model::pattern() const { return state_->config().pattern.text(); }

std::vector<float> Model::logits(std::span<const uint8_t> bytes) const {
  const auto size = static_cast<int64_t>(bytes.size());
  LONGSTRIDE_CHECK(size <= context(), "logits of {} bytes: the model's context is {}", size, context());
  const AtWork work = state_->at_work();
  const std::unique_ptr<Decoder> decoder = decoder_for(state_->loaded, size);
  std::vector<float> all;
  all.reserve(bytes.size() * kVocabulary);
  for (int64_t i = 0; i < size; ++i) {
    const uint8_t previous = i > 0 ? bytes[i - 1] : 0;
    const float* row = decoder->step(std::span(&previous, 1), i).as<float>();
    all.insert(all.end(), row, row + kVocabulary);
  }
  return all;
}

std::vector<float> Model::next_logits(std::span<const uint8_t> bytes) const {
  const auto size = static_cast<int64_t>(bytes.size());
  LONGSTRIDE_CHECK(size < context(), "logits of the byte after {}: the model's context is {}", size,
                   context());
  const AtWork work = state_->at_work();
  const std::unique_ptr<Decoder> decoder = decoder_for(state_->loaded, size + 1);
  uint8_t previous = 0;
  if (size > 0) {
    decoder->prefill(0, bytes);
    previous = bytes.back();
  }
  const float* row = decoder->step(std::span(&previous, 1), size).as<float>();
  return {row, row + kVocabulary};
}

double Model::bits_per_byte(std::span<const uint8_t> bytes, int64_t min_context) const {
  const auto size = static_cast<int64_t>(bytes.size());
  const int64_t records = kind() == "image" ? context() : 0;
  const std::vector<EvaluationWindow> windows = records > 0
                                                    ? record_windows(size, context(), records)
                                                    : evaluation_windows(size, context(), min_context);
  LONGSTRIDE_CHECK(records == 0 || min_context == 0,
                   "each picture has its own window: min_context must be 0");
  const AtWork work = state_->at_work();
  const LoadedModel& loaded = state_->loaded;
  ComputePlan plan;
  plan.device = loaded.device();
  plan.product = loaded.product();
  plan.batch = std::clamp<int64_t>(kBatchRows / context(), 1, std::ssize(windows));
  const MemoryPlan memory = plan_memory(state_->config(), plan, false);
  check_room(plan.device,
             memory.activations + memory.temporaries + memory.plans + BatchRoom::bytes(plan.batch, context()),
             "scoring");
  Transformer model(state_->config(), plan);
  const Evaluation evaluation = evaluate_bytes(model, loaded.parameters(), bytes, records, min_context, 0);
  LONGSTRIDE_CHECK(std::isfinite(evaluation.nats),
                   "the loss is not finite: the weights of step {} are damaged, or training diverged",
                   loaded.step());
  return evaluation.bits();
}

}  // namespace longstride
