#include "longstride/train/step_time.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/base/text.h"
#include "longstride/checkpoint/json_fields.h"
#include "longstride/data/cache.h"
#include "longstride/device/device.h"
#include "longstride/model/cost.h"
#include "longstride/ops/profile.h"
#include "longstride/run/describe_device.h"
#include "longstride/train/memory.h"
#include "longstride/train/trainer.h"

namespace longstride {

namespace {

// A model of the same kind that is trained in place of the whole one.
struct Probe {
  int64_t layers = 0, sequences = 0, context = 0;
};

RunConfig config_of(const RunConfig& whole, const Probe& probe) {
  RunConfig config = whole;
  config.model.context = probe.context;
  // A single axis is as long as the context, also that of a stage whose run has a longer one. The axes of pictures
  // cannot be cut.
  if (config.model.rotary() && config.model.position_axes.size() <= 1) config.model.position_axes = {};
  config.model.layers = probe.layers;
  TrainConfig& train = config.train;
  train.context_schedule = train.pattern_schedule = "";
  train.epochs = train.minutes = 0;
  train.steps = 1'000'000;
  train.batch = probe.sequences;
  train.micro_batch = std::min(whole.train.micro(), probe.sequences);
  // Noise teaches nothing, and must not diverge whatever the rates of the config are.
  train.learning_rate = train.muon_rate = 1e-6;
  config.compute.sequence_ranks = 1;
  config.data = {};
  config.data.kind = "text";
  return config;
}

// Why the probe cannot be trained in `room`, or empty.
std::string trouble_with(const RunConfig& whole, const Probe& probe, int64_t room) {
  try {
    const RunConfig config = config_of(whole, probe);
    if (probe.context != whole.model.context) config.check();
    const int64_t needed = training_memory(config).total();
    if (needed <= room) return "";
    return fmt::format("even {} layers and {} positions of the model need {}, and {} are free", probe.layers,
                       probe.context, human_bytes(static_cast<double>(needed)),
                       human_bytes(static_cast<double>(room)));
  } catch (const Error& error) {
    return error.what();
  }
}

bool can_train(const RunConfig& whole, const Probe& probe, int64_t room) {
  return trouble_with(whole, probe, room).empty();
}

double flops_of(const RunConfig& whole, const Probe& probe) {
  return cost_of(config_of(whole, probe).model).training_flops() *
         static_cast<double>(probe.sequences * probe.context);
}

// Seconds of one step, by what they grow with.
struct Parts {
  double attention = 0;  // pairs of query and key
  double update = 0;     // weights
  double rest = 0;       // tokens
  double total() const { return attention + update + rest; }
};

bool is_update(std::string_view op) {
  constexpr std::array<std::string_view, 7> kOps{
      "adam_step",     "sum_of_squares",    "newton_schulz", "gradient_squares",
      "decide_update", "update_parameters", "muon"};
  return std::ranges::find(kOps, op) != kOps.end();
}

class Clockwork {
 public:
  Clockwork(const RunConfig& whole, const Probe& probe) : device_(parse_device(whole.compute.device)) {
    const RunConfig config = config_of(whole, probe);
    std::vector<uint8_t> noise(static_cast<size_t>(std::max<int64_t>(4 * config.model.context, 1 << 16)));
    std::mt19937 random(1);
    for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
    Splits splits;
    const auto corpus = std::make_shared<const Corpus>(std::move(noise));
    splits.train = {corpus, 0, corpus->size()};
    trainer_ = std::make_unique<Trainer>(config, splits);
  }

  // The median of steps that take `seconds` together, at least two. The first is not counted: libraries choose their
  // kernels in it, and memory is touched. Nor is a second one that records a graph.
  Parts measure(double seconds) {
    for (int step = 0; step < (has_graphs() ? 2 : 1); ++step) trainer_->step();
    std::vector<double> times;
    for (double spent = 0; times.size() < 2 || (spent < seconds && times.size() < 50); spent += times.back())
      times.push_back(trainer_->step().seconds);
    std::ranges::nth_element(times, times.begin() + std::ssize(times) / 2);
    const double step = times[times.size() / 2];
    // Ops are told apart in one more step, which a GPU does without its graph. So only their shares count.
    profile_ops(true, device_.kind);
    trainer_->step();
    const std::vector<OpTime> ops = op_times();
    profile_ops(false);
    Parts parts;
    for (const OpTime& op : ops) {
      if (op.op.starts_with("attention"))
        parts.attention += op.seconds;
      else if (is_update(op.op))
        parts.update += op.seconds;
      else
        parts.rest += op.seconds;
    }
    const double scale = step / std::max(parts.total(), 1e-12);
    return {parts.attention * scale, parts.update * scale, parts.rest * scale};
  }

 private:
  bool has_graphs() const { return backend(device_).has_graphs(); }

  Device device_;
  std::unique_ptr<Trainer> trainer_;
};

// The context and its halves, as long as it can be halved, down to 256 or so.
std::vector<int64_t> contexts_of(const ModelConfig& model) {
  std::vector<int64_t> contexts{model.context};
  while (contexts.back() % 2 == 0 && contexts.back() >= 512) contexts.push_back(contexts.back() / 2);
  return contexts;
}

// Layers to measure: all of them, or fewer and fewer whole cycles, but not less than two, which beside a single one tell
// the cost of a layer from that of what is there once.
std::vector<int64_t> depths_of(const ModelConfig& model) {
  const auto cycle = static_cast<int64_t>(model.schedule().cycle.size());
  std::vector<int64_t> depths{model.layers};
  for (int64_t cycles = model.layers / cycle / 2; cycles > 2; cycles /= 2) depths.push_back(cycles * cycle);
  if (2 * cycle < model.layers) depths.push_back(2 * cycle);
  return depths;
}

// The largest part of the model that can be trained with steps of so many FLOPs. A long context matters most, then
// depth, then the number of sequences.
std::optional<Probe> largest_probe(const RunConfig& whole, double flops, int64_t room) {
  const auto may_be = [&](const Probe& probe) {
    return flops_of(whole, probe) <= flops && can_train(whole, probe, room);
  };
  for (const int64_t context : contexts_of(whole.model))
    for (const int64_t layers : depths_of(whole.model)) {
      Probe probe{.layers = layers, .sequences = 1, .context = context};
      if (!may_be(probe)) continue;
      std::vector<int64_t> counts{whole.train.batch};
      for (int64_t count = whole.train.micro(); count >= 1; count /= 2) counts.push_back(count);
      for (const int64_t count : counts) {
        probe.sequences = count;
        if (may_be(probe)) return probe;
      }
    }
  return {};
}

// `from`, where layers and head are in one number, to more layers: `fewer` tells them apart.
double with_layers(double from, double fewer, int64_t layers, int64_t few, int64_t wanted) {
  if (layers == wanted) return from;
  const double of_layer = std::max(0.0, (from - fewer) / static_cast<double>(layers - few));
  return from + of_layer * static_cast<double>(wanted - layers);
}

}  // namespace

StepTime measure_step_time(const RunConfig& config, int64_t room, double seconds) {
  const ModelConfig& model = config.model;
  const auto cycle = std::min(model.layers, static_cast<int64_t>(model.schedule().cycle.size()));
  // A first step of the least that can be scaled tells how much work the time allows. On a GPU it is too small for that.
  Probe least{.layers = depths_of(model).back(), .sequences = 1, .context = model.context};
  for (const int64_t context : contexts_of(model)) {
    Probe shorter = least;
    shorter.context = context;
    if (can_train(config, shorter, room)) least = shorter;
    if (least.context <= 1024) break;
  }
  const std::string trouble = trouble_with(config, least, room);
  LONGSTRIDE_CHECK(trouble.empty(), "the time of a step cannot be measured: {}", trouble);
  const Parts rough = Clockwork(config, least).measure(0);
  double rate = flops_of(config, least) / rough.total();
  if (parse_device(config.compute.device).kind != DeviceKind::cpu) rate = std::max(rate, 1e14);
  // A probe takes at least four steps, a second one of fewer layers no more than that.
  const Probe probe = largest_probe(config, rate * seconds / 8, room).value_or(least);
  const Parts measured = Clockwork(config, probe).measure(seconds / 4);
  Parts fewer = measured;
  Probe few = probe;
  if (probe.layers < model.layers) {
    few.layers = cycle;
    fewer = Clockwork(config, few).measure(seconds / 8);
  }

  const double tokens = static_cast<double>(config.train.batch * model.context) /
                        static_cast<double>(probe.sequences * probe.context);
  const ModelCost whole_cost = cost_of(model), cost = cost_of(config_of(config, probe).model);
  const auto grown = [&](double from, double less) {
    return with_layers(from, less, probe.layers, few.layers, model.layers);
  };
  StepTime time;
  time.attention = measured.attention * tokens * whole_cost.pairs_per_token / cost.pairs_per_token;
  time.update = grown(measured.update, fewer.update);
  time.seconds = time.attention + time.update + grown(measured.rest, fewer.rest) * tokens;
  time.layers = probe.layers, time.sequences = probe.sequences, time.context = probe.context;
  time.measured_at = static_cast<int64_t>(std::time(nullptr));
  return time;
}

namespace {

// What a step's time depends on, as a text.
std::string question(const RunConfig& config) {
  RunConfig plain = config;
  plain.data = {};
  for (int64_t* number : {&plain.train.steps, &plain.train.log_every, &plain.train.validate_every,
                          &plain.train.validate_bytes, &plain.train.checkpoint_every, &plain.train.keep_last})
    *number = 1;
  plain.train.epochs = plain.train.minutes = 0, plain.train.checkpoint_minutes = 10;
  return describe_device(parse_device(config.compute.device)) + "\n" + plain.to_toml(false);
}

std::optional<StepTime> kept(const std::string& path, const std::string& question) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const nlohmann::json json = parse_json_or_discard(text);
  try {
    if (json.at("question") != question || json.at("seconds") <= 0) return {};
    return StepTime{.seconds = json.at("seconds"),
                    .attention = json.at("attention"),
                    .update = json.at("update"),
                    .layers = json.at("layers"),
                    .sequences = json.at("sequences"),
                    .context = json.at("context"),
                    .measured_at = json.at("measured_at")};
  } catch (const nlohmann::json::exception&) {
    return {};
  }
}

void keep(const std::string& path, const std::string& question, const StepTime& time) {
  const nlohmann::json json{{"question", question},        {"seconds", time.seconds},
                            {"attention", time.attention}, {"update", time.update},
                            {"layers", time.layers},       {"sequences", time.sequences},
                            {"context", time.context},     {"measured_at", time.measured_at}};
  try {
    const std::string folder = std::filesystem::path(path).parent_path();
    make_directories(folder);
    remove_stale_temporaries(folder);  // of calls that were killed
    write_file_atomically(path, [&](ByteSink& sink) { sink.write(json.dump(1) + "\n"); });
  } catch (const Error&) {
    // A cache that cannot be written costs the next call ten seconds, no more.
  }
}

}  // namespace

StepTime step_time(const RunConfig& config, int64_t room, bool anew) {
  const std::string asked = question(config);
  std::string folder = config.data.cache;
  try {
    if (folder.empty()) folder = data::default_cache_folder();
  } catch (const Error&) {
    return measure_step_time(config, room);
  }
  const std::string path = folder + "/step-times/" + checksum_of(asked.data(), std::ssize(asked)) + ".json";
  if (!anew)
    if (const auto time = kept(path, asked)) return *time;
  const StepTime time = measure_step_time(config, room);
  keep(path, asked, time);
  return time;
}

}  // namespace longstride
