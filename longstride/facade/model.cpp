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
#include "longstride/run/run_data.h"

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
  return {.loaded = LoadedModel(run, compute, {.step = options.step, .int8 = options.int8}), .run = run};
}

void check_room(Device device, int64_t bytes, const char* what) {
  check_gpu_room(device, bytes, what, "give it fewer bytes, or use the device cpu");
  check_cpu_room(device, bytes, what, "give it fewer bytes, or free some memory");
}

// For forward passes over `windows` windows, several at a time. The memory is checked first.
std::unique_ptr<Transformer> transformer_for(const LoadedModel& loaded, const ModelConfig& config,
                                             int64_t windows) {
  ComputePlan plan;
  plan.device = loaded.device();
  plan.product = loaded.product();
  plan.batch = std::clamp<int64_t>(kBatchRows / config.context, 1, windows);
  const MemoryPlan memory = plan_memory(config, plan, false);
  check_room(
      plan.device,
      memory.activations + memory.temporaries + memory.plans + BatchRoom::bytes(plan.batch, config.context),
      "scoring");
  return std::make_unique<Transformer>(config, plan);
}

// How many windows of `records` bytes, if that is not 0, or of the context. Throws Error if they cannot be.
int64_t window_count(int64_t size, int64_t context, int64_t records, int64_t min_context) {
  LONGSTRIDE_CHECK(records == 0 || min_context == 0,
                   "each picture has its own window: min_context must be 0");
  return std::ssize(records > 0 ? record_windows(size, context, records)
                                : evaluation_windows(size, context, min_context));
}

double bits_of(const Evaluation& evaluation, const LoadedModel& loaded) {
  LONGSTRIDE_CHECK(std::isfinite(evaluation.nats),
                   "the loss is not finite: the weights of step {} are damaged, or training diverged",
                   loaded.step());
  return evaluation.bits();
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

std::vector<float> Model::logits(std::span<const uint8_t> bytes, const Progress& progress) const {
  const int64_t size = std::ssize(bytes);
  LONGSTRIDE_CHECK(size <= context(), "logits of {} bytes: the model's context is {}", size, context());
  std::vector<float> all(bytes.size() * kVocabulary);
  if (bytes.empty()) return all;
  const AtWork work = state_->at_work();
  const std::unique_ptr<Transformer> model =
      transformer_for(state_->loaded, state_->config().shortened(size), 1);
  const BatchRoom room(*model);
  std::copy(bytes.begin(), bytes.end(), room.tokens());
  std::function<void()> after_layer;
  if (progress) after_layer = [&] { progress(0, size); };
  room.logits(
      state_->loaded.parameters(),
      [&](int64_t first, const Tensor& logits) {
        float* const to = all.data() + first * kVocabulary;
        copy(logits, Tensor(to, DType::f32, {logits.shape[0], kVocabulary}));
        if (progress) progress(first + logits.shape[0], size);
      },
      after_layer);
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

double Model::bits_per_byte(std::span<const uint8_t> bytes, int64_t min_context,
                            const Progress& progress) const {
  const int64_t records = kind() == "image" ? context() : 0;
  const int64_t windows = window_count(std::ssize(bytes), context(), records, min_context);
  const AtWork work = state_->at_work();
  const LoadedModel& loaded = state_->loaded;
  const auto model = transformer_for(loaded, state_->config(), windows);
  return bits_of(evaluate_bytes(*model, loaded.parameters(), bytes, records, min_context, 0, progress),
                 loaded);
}

double Model::bits_per_byte_of(const std::string& part, int64_t min_context, int64_t max_bytes,
                               const Progress& progress) const {
  LONGSTRIDE_CHECK(part == "train" || part == "validation" || part == "test",
                   "part '{}': the parts are train, validation and test", part);
  const DataConfig& data = state_->loaded.config().data;
  const std::string& run = state_->run;
  LONGSTRIDE_CHECK(!run.empty() && !data.path.empty(),
                   "the model has no data with parts: it was trained on bytes in memory; give the bytes");
  const Splits splits = open_run_data(data, run);
  check_run_data(run, data, splits, part);
  const Segment& segment = part == "train" ? splits.train : part == "test" ? splits.test : splits.validation;
  LONGSTRIDE_CHECK(segment.size() > 0, "the run's data has no {} part", part);
  const int64_t size = max_bytes > 0 ? std::min(max_bytes, segment.size()) : segment.size();
  const AtWork work = state_->at_work();
  const LoadedModel& loaded = state_->loaded;
  const auto model = transformer_for(loaded, state_->config(), (size + context() - 1) / context());
  return bits_of(evaluate_segment(*model, loaded.parameters(), segment, min_context, max_bytes, progress),
                 loaded);
}

Entropies Model::entropies(std::span<const uint8_t> bytes, int64_t min_context,
                           const Progress& progress) const {
  if (bytes.empty()) return {};
  const int64_t records = kind() == "image" ? context() : 0, size = std::ssize(bytes);
  const int64_t windows = window_count(size, context(), records, min_context);
  const AtWork work = state_->at_work();
  const LoadedModel& loaded = state_->loaded;
  const ModelConfig& config = state_->config();
  const auto model = transformer_for(loaded, size < context() ? config.shortened(size) : config, windows);
  ByteEntropies found = entropies_of(BatchRoom(*model), loaded.parameters(), bytes, records,
                                     windows > 1 ? min_context : 0, progress);
  return {std::move(found.bits), std::move(found.entropy)};
}

}  // namespace longstride
