// The shape of a model that a config leaves open.
//
// Time and device give a number of FLOPs, F. Training takes about 6 for each parameter and byte, so a model
// that is to read r bytes for each parameter has N = sqrt(F / (6 r)) parameters. On a GPU, r is that of the
// models of 38M to 59M parameters, which did best in two and ten minutes. On a CPU it is larger, because a
// model that gets few steps learns next to nothing and other processes may take half of the time
// (docs/results.md). A model much larger than its data learns them by heart, so N is bounded by their bytes
// too.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/cpu_memory.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/device/device.h"
#include "longstride/device/instructions.h"
#include "longstride/model/transformer.h"
#include "longstride/run/choices.h"
#include "longstride/run/gpu_room.h"

namespace longstride {

namespace {

constexpr double kBytesPerParameterOnGpus = 5, kBytesPerParameterOnCpus = 6;
constexpr double kParametersPerByte = 1.5;  // for each byte of training data, at most; not measured
constexpr double kDefaultMinutes = 10;

struct Size {
  int64_t layers, width;
};
// From a width of 128 on, heads have 64 channels, because GPUs are fast with them.
constexpr std::array kSizes{Size{2, 96},   Size{3, 128},  Size{4, 192},  Size{6, 256},   Size{8, 384},
                            Size{10, 512}, Size{12, 640}, Size{12, 768}, Size{16, 1024}, Size{24, 1024}};

double parameters_of(const Size& size) {
  return 12.0 * static_cast<double>(size.layers * size.width * size.width);
}

bool is_gpu(const RunConfig& config) { return parse_device(config.compute.device).kind == DeviceKind::cuda; }

// FLOP per second of training. It is rough and not measured at run time, so that the same machine chooses
// the same model each time. GPU: the 85M and 95M models of docs/results.md on an H100 and an H200. One core:
// three layers of width 128 on one core of an EPYC (Zen 4), for each instruction set; AMX was not measured
// and counts as BF16.
double training_rate(const ComputeConfig& config) {
  if (parse_device(config.device).kind == DeviceKind::cuda) return 2e14;
  const int64_t cores = config.threads > 0 ? config.threads : threads();
  const auto of_core = [] {
    if (may_use(Instructions::avx512_bf16)) return 1.1e11;
    if (may_use(Instructions::avx512)) return 7e10;
    if (may_use(Instructions::avx2)) return 6.5e10;
    if (may_use(Instructions::sse4)) return 2.3e10;
    return 1.6e10;
  };
  return of_core() * static_cast<double>(cores);
}

// The minutes that the run will take, if the config names them. If it counts steps or epochs, the usual
// number.
double minutes_of(const TrainConfig& train) { return train.minutes > 0 ? train.minutes : kDefaultMinutes; }

Size size_for(const RunConfig& config, int64_t train_bytes) {
  const double flops = training_rate(config.compute) * 60 * minutes_of(config.train);
  const double bytes = is_gpu(config) ? kBytesPerParameterOnGpus : kBytesPerParameterOnCpus;
  const double wanted =
      std::min(std::sqrt(flops / (6 * bytes)), kParametersPerByte * static_cast<double>(train_bytes));
  // The nearest, by ratio.
  return *std::min_element(kSizes.begin(), kSizes.end(), [&](const Size& a, const Size& b) {
    return std::abs(std::log(parameters_of(a) / wanted)) < std::abs(std::log(parameters_of(b) / wanted));
  });
}

int64_t heads_for(const ModelConfig& model) {
  const int64_t channels = model.qk_width > 0 ? std::min(model.qk_width, model.width) : model.width;
  for (int64_t heads = std::max<int64_t>(channels >= 64 ? 2 : 1, channels / 64); heads > 1; --heads)
    if (model.width % heads == 0 && model.qk() % (2 * heads) == 0) return heads;
  return 1;
}

// The longest context that the time can teach and that the data fill, for text and sound.
int64_t context_for(const RunConfig& config, const Splits& splits) {
  const FastChoices& fast = modality_of(config.data).fast;
  const auto& contexts = fast.contexts;
  const double minutes = minutes_of(config.train);
  size_t at = is_gpu(config) ? (minutes >= 4   ? 0
                                : minutes >= 1 ? 1
                                               : 2)
                             : fast.cpu_context + (minutes >= fast.cpu_minutes ? 0 : 1);
  // Whether there are enough windows to learn from, and one to validate with.
  const auto fits = [&](int64_t context) {
    return 16 * context <= splits.train.size() &&
           (splits.validation.size() == 0 || context <= splits.validation.size());
  };
  while (at + 1 < contexts.size() && !fits(contexts[at])) ++at;
  int64_t context = contexts[at];
  while (context > 16 && !fits(context)) context /= 2;
  return context;
}

constexpr int64_t kDenseOnCpu = 512;

// The row is near the root of the context, so that the own row and the summaries have about as many
// positions.
std::string pattern_for(const RunConfig& config, const ImageShape& picture) {
  if (picture.bytes() > 0) return fmt::format("strided:{}", picture.width * picture.channels);
  int64_t row = 1;
  while (row * row < config.model.context) row *= 2;
  row = std::min(row, config.model.context);
  if (modality_of(config.data).fast.strided) return fmt::format("strided:{}", row);
  // As in the configs of this project: a quarter of a block is its summary, and no block is shorter than 32.
  row = std::min(std::max<int64_t>(32, row), config.model.context);
  // On a CPU the products of short contexts take so long that dense attention costs nothing beside them.
  if (row < 8 || (!is_gpu(config) && config.model.context <= kDenseOnCpu)) return "dense";
  // Heads that each see another quarter of the earlier blocks learn far more of text in minutes of a GPU, and a little
  // less in the few hundred steps of minutes on a CPU (docs/results.md).
  return fmt::format("{}fixed:{},{}", is_gpu(config) ? "spread-" : "", row, row / 4);
}

int64_t batch_for(const RunConfig& config) {
  const int64_t bytes = is_gpu(config) ? 24576 : modality_of(config.data).fast.cpu_batch_bytes;
  return std::max<int64_t>(1, bytes / config.model.context);
}

// Short contexts first, for text and long contexts (docs/results.md); pictures are learnt whole.
std::string context_schedule_for(const RunConfig& config) {
  const int64_t context = config.model.context;
  if (!modality_of(config.data).fast.short_contexts_first || context < 4096) return "";
  std::string schedule;
  if (context % 1024 == 0) schedule = "1024 until 0.1";
  if (context % 4 == 0 && context / 4 > 1024)
    schedule += fmt::format("{}{} until 0.7", schedule.empty() ? "" : "; ", context / 4);
  return schedule;
}

std::string activations_for(const RunConfig& config) {
  ComputePlan plan;
  plan.device = parse_device(config.compute.device);
  plan.product = product_precision(config.compute, plan.device);
  plan.batch = config.train.micro();
  plan.training = true;
  plan.recompute = false;
  const int64_t room = is_gpu(config) ? gpu_room(plan.device) : cpu_memory().free;
  return plan_memory(config.model, plan, config.train.average > 0).total() <= room / 10 * 9 ? "keep"
                                                                                            : "recompute";
}

}  // namespace

std::string changes_of(RunConfig before, RunConfig after) {
  const FieldList was = before.fields(), is = after.fields();
  std::string changes;
  for (size_t i = 0; i < was.all().size(); ++i) {
    const std::string value = is.all()[i].value_as_toml();
    if (value != was.all()[i].value_as_toml())
      changes += fmt::format("{}{} = {}", changes.empty() ? "" : ", ", is.all()[i].key(), value);
  }
  return changes;
}

bool shape_is_open(const ModelConfig& model) {
  return model.context == 0 || model.layers == 0 || model.heads == 0 || model.width == 0 ||
         model.pattern.empty();
}

bool is_open(const RunConfig& config) {
  return config.data.kind == kOpenKind || shape_is_open(config.model) || config.train.batch == 0 ||
         config.train.context_schedule == "auto" || config.train.activations == "auto";
}

void choose_kind(DataConfig& config) {
  if (config.kind == kOpenKind) config.kind = kind_of_data(config.path);
}

void choose_shape(RunConfig& config, const Splits& splits) {
  ModelConfig& model = config.model;
  const Corpus& corpus = *splits.train.corpus;
  if (model.context == 0)
    model.context = corpus.record_bytes() > 0 ? corpus.record_bytes() : context_for(config, splits);
  if (model.layers == 0 || model.width == 0) {
    const Size size = size_for(config, splits.train.size());
    if (model.layers == 0) model.layers = size.layers;
    if (model.width == 0) model.width = model.heads > 0 ? 64 * model.heads : size.width;
  }
  if (model.heads == 0) model.heads = heads_for(model);
  if (model.pattern.empty()) model.pattern = pattern_for(config, corpus.shape());
  choose_training(config);
}

void choose_training(RunConfig& config) {
  TrainConfig& train = config.train;
  if (train.batch == 0) {
    // Whole micro-batches.
    const int64_t micro = std::max<int64_t>(1, train.micro_batch);
    train.batch = (batch_for(config) + micro - 1) / micro * micro;
  }
  if (train.context_schedule == "auto") train.context_schedule = context_schedule_for(config);
  // check() looks only at the ranges of a config with an open field, and a plan needs a config that is
  // checked whole. So activations count as chosen here.
  const bool open = train.activations == "auto";
  if (open) train.activations = "keep";
  config.check();
  if (open) train.activations = activations_for(config);
}

}  // namespace longstride
