#include "cli/inspect_plan.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/backend.h"
#include "longstride/device/memory.h"
#include "longstride/model/cost.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/stages.h"
#include "longstride/train/fit.h"
#include "longstride/train/memory.h"
#include "longstride/train/schedule.h"
#include "longstride/train/step_time.h"

namespace longstride::cli {

namespace {

constexpr double kForwardShare = 1.0 / 3;  // of a training step: validation computes no gradients

Extent extent_named(const std::string& name) {
  if (name == "batch") return Extent::batch;
  return name == "context" ? Extent::context : Extent::layers;
}

const char* key_of(Extent extent) {
  switch (extent) {
    case Extent::batch:
      return "train.batch";
    case Extent::context:
      return "model.context";
    case Extent::layers:
      return "model.layers";
  }
  fail("no such extent");
}

ModelConfig dense(ModelConfig model) {
  // A pattern's row is an axis of the paper's positions.
  if (!model.rotary() && model.position_axes.empty()) model.position_axes = model.axes();
  model.pattern = "dense";
  return model;
}

// "4 of 12 layers and 1 of 8 sequences", or nothing if all was measured.
std::string cut_down(const RunConfig& config, const StepTime& time) {
  std::vector<std::string> parts;
  const auto part = [&](int64_t measured, int64_t all, const char* what) {
    if (measured < all) parts.push_back(fmt::format("{} of {} {}", measured, all, what));
  };
  part(time.layers, config.model.layers, "layers");
  part(time.sequences, config.train.batch, "sequences");
  part(time.context, config.model.context, "positions");
  return fmt::format("{}", fmt::join(parts, ", "));
}

double bytes_a_step(const RunConfig& config) {
  return static_cast<double>(config.train.batch * config.model.context);
}

// Seconds of attention if every layer were dense.
double dense_attention(const RunConfig& config, const StepTime& time) {
  return time.attention * cost_of(dense(config.model)).pairs_per_token /
         cost_of(config.model).pairs_per_token;
}

}  // namespace

int64_t training_room(const RunConfig& config, const InspectOptions& options) {
  const Device device = parse_device(config.compute.device);
  if (device.kind != DeviceKind::cpu) return options.room > 0 ? options.room : gpu_room(device);
  // The program itself is a part of what training takes of a CPU's memory.
  return (options.room > 0 ? options.room - resident_memory() : cpu_memory().free) - kLibraryMemory;
}

Answer answer_fit(RunConfig& config, const InspectOptions& options) {
  const Extent extent = extent_named(options.fit);
  const int64_t room = training_room(config, options), before = extent_of(config, extent);
  const auto larger = largest_that_fits(config, extent, room);
  const std::string told = options.room > 0 ? fmt::format("--room {}: ", options.room) : "";
  LONGSTRIDE_CHECK(larger.has_value(),
                   "{}no {} fits into {} beside program and libraries; a smaller model.width would need less",
                   told, key_of(extent), human_bytes(static_cast<double>(std::max<int64_t>(0, room))));
  config = *larger;
  const int64_t now = extent_of(config, extent), needed = training_memory(config).total();
  Answer answer;
  answer.lines.push_back(fmt::format("fits       {} = {} in place of {}: {} of {}{}", key_of(extent), now,
                                     before, human_bytes(static_cast<double>(needed)),
                                     human_bytes(static_cast<double>(room)),
                                     extent == Extent::context ? ", without a context schedule" : ""));
  answer.json = {
      {"key", key_of(extent)}, {"value", now}, {"before", before}, {"room", room}, {"needed", needed}};
  return answer;
}

Answer answer_time(const RunConfig& config, int64_t windows, const InspectOptions& options) {
  const int64_t room = training_room(config, options);
  const std::vector<Stage> stages = stages_of(config);
  Answer answer;
  // Seconds and bytes of the whole run, by the parts of its progress that the stages have.
  const bool timed = config.train.minutes > 0;
  double mean_step = 0, mean_dense = 0, pace = 0;  // pace: steps a second of a run that is cut by time
  for (size_t i = 0; i < stages.size(); ++i) {
    const RunConfig& stage = stages[i].config;
    const StepTime time = step_time(stage, room, options.measure_anew);
    const double part = (i + 1 < stages.size() ? stages[i + 1].from : 1.0) - stages[i].from;
    const double rate = bytes_a_step(stage) / time.seconds;
    const double with_dense = time.seconds - time.attention + dense_attention(stage, time);
    mean_step += part * time.seconds, mean_dense += part * with_dense, pace += part / time.seconds;
    const std::string cut = cut_down(stage, time);
    answer.lines.push_back(fmt::format(
        "step       {}{:.4g} s, {:.4g} bytes a second; attention {:.0f} %, update {:.0f} %; measured "
        "{:%Y-%m-%d %H:%M}{}{}",
        stages.size() > 1 ? fmt::format("context {}: ", stage.model.context) : "", time.seconds, rate,
        100 * time.attention / time.seconds, 100 * time.update / time.seconds,
        fmt::localtime(static_cast<std::time_t>(time.measured_at)), cut.empty() ? "" : " on ", cut));
    answer.json["stages"].push_back({{"context", stage.model.context},
                                     {"seconds", time.seconds},
                                     {"attention_seconds", time.attention},
                                     {"update_seconds", time.update},
                                     {"bytes_per_second", rate},
                                     {"dense_seconds", with_dense},
                                     {"measured",
                                      {{"layers", time.layers},
                                       {"sequences", time.sequences},
                                       {"context", time.context},
                                       {"at", time.measured_at}}}});
  }
  answer.lines.push_back(fmt::format("dense      {:.4g} s a step with dense attention, {:.3g} times as long",
                                     mean_dense, mean_dense / mean_step));
  answer.json["dense_seconds"] = mean_dense;

  const bool counted = config.train.epochs <= 0 || windows >= 0;
  double steps = counted ? static_cast<double>(total_steps(config.train, windows)) : 0;
  const TrainConfig& train = config.train;
  // A validation of so many bytes after so many steps.
  const double validation = train.validate_every > 0
                                ? kForwardShare * static_cast<double>(train.validate_bytes) /
                                      (bytes_a_step(config) / mean_step) /
                                      static_cast<double>(train.validate_every)
                                : 0;
  double seconds = steps * (mean_step + validation);
  if (timed && (!counted || steps * mean_step > 60 * train.minutes)) {
    // The time of validations does not count as time of training.
    steps = 60 * train.minutes * pace;
    seconds = 60 * train.minutes + steps * validation;
  } else if (!counted) {
    answer.lines.push_back("run        its length follows from the data, and they are not there");
    return answer;
  }
  const double bytes = steps * bytes_a_step(config);
  std::string line = fmt::format("run        about {}: {:.0f} steps, {} bytes", human_seconds(seconds), steps,
                                 human_count(bytes));
  answer.json["run"] = {{"seconds", seconds}, {"steps", std::llround(steps)}, {"bytes", bytes}};
  if (options.price > 0) {
    line += fmt::format("; {:.2f} at {:g} an hour", seconds / 3600 * options.price, options.price);
    answer.json["run"]["cost"] = seconds / 3600 * options.price;
  }
  answer.lines.push_back(line);
  return answer;
}

Answer answer_dense(const RunConfig& config) {
  const ModelCost cost = cost_of(config.model), with_dense = cost_of(dense(config.model));
  Answer answer;
  answer.lines.push_back(fmt::format(
      "dense      {} pairs a token with dense attention, {:.3g} times as many; {}FLOP to train on it",
      human_count(with_dense.pairs_per_token), with_dense.pairs_per_token / cost.pairs_per_token,
      human_count(with_dense.training_flops())));
  answer.json = {{"pairs_per_token", with_dense.pairs_per_token},
                 {"training_flops_per_token", with_dense.training_flops()}};
  return answer;
}

}  // namespace longstride::cli
