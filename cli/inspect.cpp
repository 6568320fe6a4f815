// `longstride inspect`: the shape, cost, needs and reach of a model, before anything is spent.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/base/threads.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/decode/key_caches.h"
#include "longstride/device/backend.h"
#include "longstride/model/cost.h"
#include "longstride/model/transformer.h"
#include "longstride/pattern/analyse.h"
#include "longstride/pattern/draw.h"
#include "longstride/run/choices.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_data.h"
#include "longstride/run/stages.h"
#include "longstride/train/memory.h"

#include "cli/commands.h"
#include "cli/inspect_attention.h"
#include "cli/inspect_plan.h"
#include "cli/load_config.h"
#include "cli/output_file.h"
#include "cli/standard_streams.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace {

MemoryPlan inference_memory(const RunConfig& config) {
  ComputePlan plan;
  plan.device = parse_device(config.compute.device);
  plan.product = product_precision(config.compute, plan.device);
  return plan_memory(config.model, plan, false);
}

nlohmann::json as_json(const MemoryPlan& m) {
  return {{"weights", m.weights},         {"products", m.products},
          {"gradients", m.gradients},     {"optimizer", m.optimizer},
          {"average", m.average},         {"activations", m.activations},
          {"temporaries", m.temporaries}, {"plans", m.plans},
          {"offloaded", m.offloaded},     {"total", m.total()}};
}

// What a sampler keeps for one sequence of the context's length.
struct SamplerCaches {
  explicit SamplerCaches(const RunConfig& config)
      : model(config.model),
        plan(plan_caches(config.model, config.model.context,
                         product_precision(config.compute, parse_device(config.compute.device)), false)) {
    // As the decoder has them.
    if (parse_device(config.compute.device).kind != DeviceKind::cpu) plan.recent = plan.keys;
    dense = dense_cache_bytes(plan, model);
    for (int64_t layer = 0; layer < model.layers; ++layer) total += cache_bytes(plan, model, layer);
  }
  double rows_a_head(int64_t layer) const {
    return static_cast<double>(plan.layer(layer).rows) / static_cast<double>(model.heads);
  }
  int64_t bytes(int64_t layer) const { return cache_bytes(plan, model, layer); }
  double of_dense(int64_t layer) const {
    return static_cast<double>(bytes(layer)) / static_cast<double>(dense);
  }
  double total_of_dense() const {
    return static_cast<double>(total) / static_cast<double>(dense * model.layers);
  }

  const ModelConfig& model;
  CachePlan plan;
  int64_t dense = 0;  // bytes of one layer that keeps every key
  int64_t total = 0;  // bytes of all layers
};

// Heads may keep different numbers of rows, so the mean may be a fraction.
std::string rows_text(double rows) {
  return rows == std::floor(rows) ? fmt::format("{:.0f}", rows) : fmt::format("{:.1f}", rows);
}

// Open fields follow from the data, and so do the context and the axes of pictures. Missing data are an
// error only if the model's shape is open.
// Returns the windows of the training part, or -1 if the data are not there or were not needed.
int64_t look_at_data(RunConfig& config, bool length_wanted) {
  const DataConfig& data = config.data;
  const bool open = is_open(config);
  if (!open && (!modality_of(data).records || data.image_height > 0) && !length_wanted) return -1;
  std::error_code error;
  if (data.path.empty() || !std::filesystem::exists(data.path, error)) {
    LONGSTRIDE_CHECK(
        !shape_is_open(config.model),
        "the config leaves the model's shape to its data, but {}; set data.path, or every one of "
        "model.context, layers, heads, width and pattern",
        data.path.empty() ? "data.path is not set" : data.path + " is not there");
    if (data.kind == kOpenKind) config.data.kind = DataConfig{}.kind;
    if (open) choose_training(config);
    return -1;
  }
  choose_kind(config.data);
  const Splits splits = open_splits(data);
  if (open) choose_shape(config, splits);
  take_pictures(config, *splits.train.corpus, true);
  return splits.train.size() / config.model.context;
}

// Rows are those of a picture, or as the pattern has them.
std::optional<DrawnQuery> drawn_query(const InspectOptions& options, const ModelConfig& model) {
  if (options.query < 0) return {};
  const std::vector<int64_t> axes = model.axes();
  int64_t row = axes.size() > 1 ? 1 : model.pattern_row();
  for (size_t axis = 1; axis < axes.size(); ++axis) row *= axes[axis];
  return DrawnQuery{options.query, std::min(row, model.context)};
}

}  // namespace

int run_inspect(const InspectOptions& options) {
  if (options.attention.empty() && options.draw.empty() && options.draw_reach.empty() &&
      std::find(options.given.begin(), options.given.end(), "--pixels") != options.given.end())
    throw UsageError("--pixels: nothing is drawn; --draw, --draw-reach or --attention draws");
  if (!options.attention.empty()) return run_inspect_attention(options);
  RunConfig config = load_config(options.target, options.overrides);
  use_instructions(config.compute);
  const RunConfig as_given = config;
  const bool length_wanted = options.time && config.train.epochs > 0;
  const int64_t windows = look_at_data(config, length_wanted);
  const std::string chosen = changes_of(as_given, config);
  Answer fit, time;
  if (!options.fit.empty()) fit = answer_fit(config, options);
  if (options.query >= config.model.context)
    throw UsageError(
        fmt::format("--query {}: the positions are 0 to {}", options.query, config.model.context - 1));
  const Answer dense = answer_dense(config);
  const std::vector<Stage> stages = stages_of(config);
  const ModelConfig& model = config.model;
  const Schedule& schedule = model.schedule();
  const ModelCost cost = cost_of(model);
  const Reach reach = analyse_reach(schedule, model.layers, model.heads, model.context);
  const Device device = parse_device(config.compute.device);
  const bool on_gpu = device.kind == DeviceKind::cuda;
  const MemoryPlan training = training_memory(config);
  const MemoryPlan inference = inference_memory(config);
  const double own = static_cast<double>(on_gpu ? kDriverMemory : resident_memory() + kLibraryMemory);

  if (!options.draw.empty()) prepare_output(options.draw, "--draw");
  if (!options.draw_reach.empty()) {
    Picture::check_ending(options.draw_reach);
    if (same_file(options.draw, options.draw_reach))
      throw UsageError(fmt::format("--draw-reach {}: that is the file of --draw", options.draw_reach));
    prepare_output(options.draw_reach, "--draw-reach");
    picture_of_reach(schedule, model.layers, model.heads, model.context, options.pixels)
        .save(options.draw_reach);
  }
  if (!options.draw.empty())
    draw_schedule(schedule, model.heads, model.context, options.pixels, options.draw,
                  drawn_query(options, model));

  std::vector<std::pair<std::string, double>> layers;
  for (const LayerPattern& layer : schedule.cycle)
    layers.emplace_back(to_string(layer), mean_keys(layer, model.heads, model.context));
  const SamplerCaches caches(config);
  if (options.time) {
    backend(device).use(device.index);
    set_threads(static_cast<int>(config.compute.threads));
    time = answer_time(config, windows, options);
  }

  if (options.json) {
    nlohmann::json out{{"parameters", cost.parameters},
                       {"context", model.context},
                       {"device", name_of(device)},
                       {"gpu", on_gpu ? backend(device).describe(device.index) : ""},
                       {"pairs_per_token", cost.pairs_per_token},
                       {"forward_flops_per_token", cost.forward_flops()},
                       {"attention_flops_per_token", cost.attention_flops},
                       {"training_flops_per_token", cost.training_flops()},
                       {"position_axes", model.axes()},
                       {"memory", {{"training", as_json(training)}, {"inference", as_json(inference)}}},
                       {"reach",
                        {{"complete", reach.complete},
                         {"exhaustive", reach.exhaustive},
                         {"layers", reach.layers},
                         {"text", describe(reach, model.context)}}}};
    for (size_t i = 0; i < layers.size(); ++i) {
      const int64_t layer = static_cast<int64_t>(i);
      out["layers"].push_back({{"pattern", layers[i].first},
                               {"mean_keys", layers[i].second},
                               {"cache_rows", caches.rows_a_head(layer)},
                               {"cache_bytes", caches.bytes(layer)},
                               {"cache_of_dense", caches.of_dense(layer)}});
    }
    for (const Stage& stage : stages)
      out["stages"].push_back({{"from", stage.from},
                               {"context", stage.config.model.context},
                               {"pattern", stage.config.model.pattern.text()},
                               {"batch", stage.config.train.batch}});
    out["recipe"] = config.train.recipe;
    out["dense"] = dense.json;
    if (!fit.lines.empty()) out["fit"] = fit.json;
    if (!time.lines.empty()) out["time"] = time.json;
    out["memory"]["sampling"] = {{"cache_dtype", name_of(caches.plan.values)},
                                 {"cache_a_stream", caches.total},
                                 {"dense_cache_a_stream", caches.dense * model.layers}};
    print_json(out);
    return 0;
  }

  if (!chosen.empty()) print_result("chosen     {}\n", chosen);
  print_result("model      {} layers, {} heads, width {}, qk {}, feed-forward {}, context {}\n", model.layers,
               model.heads, model.width, model.qk(), model.ff(), model.context);
  print_result("parameters {} ({})\n", human_count(static_cast<double>(cost.parameters)), cost.parameters);
  print_result("positions  {} ({})\n", fmt::join(model.axes(), " x "), model.positions);
  for (const auto& [text, keys] : layers)
    print_result("attention  {}: {:.1f} keys a query and head\n", text, keys);
  for (size_t i = 0; i < layers.size(); ++i) {
    const int64_t layer = static_cast<int64_t>(i);
    print_result("sampling   {}: {} rows of keys and values a head, {} a layer, {:.3g} % of a dense cache\n",
                 layers[i].first, rows_text(caches.rows_a_head(layer)),
                 human_bytes(static_cast<double>(caches.bytes(layer))), 100 * caches.of_dense(layer));
  }
  print_result("sampling   {} in {} a stream for {} layers, {:.3g} % of a dense cache\n",
               human_bytes(static_cast<double>(caches.total)), name_of(caches.plan.values), model.layers,
               100 * caches.total_of_dense());
  if (stages.size() > 1)
    for (const Stage& stage : stages)
      print_result("stage      from {:.3g} % of the run: context {}, pattern {}, batch {}\n",
                   100 * stage.from, stage.config.model.context, stage.config.model.pattern.text(),
                   stage.config.train.batch);
  print_result("reach      {}{}\n", reach.complete ? "" : "warning: ", describe(reach, model.context));
  print_result("cost       {}FLOP a token forward ({:.0f} % attention), {}FLOP to train on it; {} pairs\n",
               human_count(cost.forward_flops()), 100 * cost.attention_flops / cost.forward_flops(),
               human_count(cost.training_flops()), human_count(cost.pairs_per_token));
  for (const Answer* answer : std::initializer_list<const Answer*>{&dense, &fit, &time})
    for (const std::string& line : answer->lines) print_result("{}\n", line);
  const auto print_memory = [&](const char* use, const MemoryPlan& m) {
    print_result("{}{}: weights {}", use, human_bytes(static_cast<double>(m.total()) + own),
                 human_bytes(m.weights));
    for (const auto& [name, bytes] : {std::pair<const char*, int64_t>{"products", m.products},
                                      {"gradients", m.gradients},
                                      {"optimizer", m.optimizer},
                                      {"average", m.average},
                                      {"activations", m.activations},
                                      {"temporaries", m.temporaries},
                                      {"tile lists", m.plans},
                                      {"beside it on the CPU", m.offloaded}})
      if (bytes > 0) print_result(", {} {}", name, human_bytes(static_cast<double>(bytes)));
    print_result(", {} {}", on_gpu ? "libraries' code" : "program and libraries", human_bytes(own));
    print_result("\n");
  };
  if (on_gpu) {
    const DeviceMemory there = backend(device).memory(device.index);
    print_result("device     {}: {}, {} of {} free; {} are set aside for libraries' code\n", name_of(device),
                 backend(device).describe(device.index), human_bytes(there.free), human_bytes(there.total),
                 human_bytes(kGpuAllowance));
  }
  print_memory("memory     training ", training);
  print_memory("memory     evaluation ", inference);
  if (!options.draw.empty()) print_result("drawn      {}\n", options.draw);
  if (!options.draw_reach.empty()) print_result("drawn      {}\n", options.draw_reach);
  return 0;
}

}  // namespace longstride::cli
