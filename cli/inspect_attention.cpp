#include "cli/inspect_attention.h"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/eval/attention_weights.h"
#include "longstride/report/attention_picture.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"

#include "cli/load_run.h"
#include "cli/memory_note.h"
#include "cli/output_file.h"
#include "cli/standard_streams.h"
#include "cli/table.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace {

constexpr int64_t kMostCells = 512;

struct Window {
  std::vector<uint8_t> bytes;
  std::string name;  // for people
};

// The first of the validation part, or of the training part where there is no other.
Window window_of(const InspectOptions& options, const RunConfig& config) {
  const int64_t context = config.model.context;
  const Splits splits =
      open_splits_of(options.target, config, options.overrides, "validation", options.data_changed);
  const bool held_out = splits.validation.size() >= context;
  const Segment& segment = held_out ? splits.validation : splits.train;
  LONGSTRIDE_CHECK(segment.size() >= context,
                   "the data have {} bytes to look at, fewer than the context of {}; name others by --set "
                   "data.path=FILE",
                   segment.size(), context);
  return {segment.read(0, context),
          fmt::format("the first {} bytes of the {} part of {}", context,
                      held_out ? "validation" : "training", segment.corpus->description())};
}

nlohmann::json as_json(const LayerWeights& layer, const InspectOptions& options, const LoadedModel& loaded,
                       const std::string& data) {
  nlohmann::json heads = nlohmann::json::array();
  for (const HeadWeights& head : layer.heads) {
    nlohmann::json terms = nlohmann::json::array();
    for (const HeadWeights::OfTerm& term : head.terms)
      terms.push_back({{"term", term.term}, {"weight", term.weight}});
    heads.push_back({{"pattern", head.pattern},
                     {"keys", head.keys},
                     {"effective_keys", head.effective},
                     {"distance", head.distance},
                     {"itself", head.itself},
                     {"beginning", head.beginning},
                     {"terms", terms}});
  }
  return {{"run", options.target},
          {"step", loaded.step()},
          {"data", data},
          {"layer", layer.layer + 1},
          {"positions", layer.positions},
          {"queries", layer.queries},
          {"picture", options.attention},
          {"heads", heads}};
}

std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }

void print_heads(const LayerWeights& layer) {
  std::vector<std::vector<std::string>> rows{
      {"head", "through", "keys", "as many as", "back", "itself %", "first %"}};
  for (size_t h = 0; h < layer.heads.size(); ++h) {
    const HeadWeights& head = layer.heads[h];
    std::string through;
    for (const HeadWeights::OfTerm& term : head.terms)
      through += fmt::format("{}{} {} %", through.empty() ? "" : ", ", term.term, percent(term.weight));
    rows.push_back({std::to_string(h + 1), through, fmt::format("{:.1f}", head.keys),
                    fmt::format("{:.1f}", head.effective), fmt::format("{:.0f}", head.distance),
                    percent(head.itself), percent(head.beginning)});
  }
  print_table(rows, 2);
}

}  // namespace

int run_inspect_attention(const InspectOptions& options) {
  if (options.time || !options.fit.empty() || !options.draw.empty() || !options.draw_reach.empty() ||
      options.query >= 0)
    throw UsageError("--attention looks at a trained model, and goes with no other question");
  RunConfig config = load_run_config(options.target, options.overrides);
  use_instructions(config.compute);
  const ModelConfig& model_config = config.model;
  if (options.layer > model_config.layers)
    throw UsageError(
        fmt::format("--layer {}: the model has layers 1 to {}", options.layer, model_config.layers));
  Picture::check_ending(options.attention);
  prepare_output(options.attention, "--attention");
  const Window window = window_of(options, config);
  const LoadedModel loaded(options.target, config.compute, {});
  ComputePlan plan;
  plan.device = loaded.device();
  plan.product = loaded.product();
  const MemoryPlan memory = plan_memory(model_config, plan, false);
  const int64_t needed = memory.activations + memory.temporaries + memory.plans;
  check_gpu_room(plan.device, needed, "looking at attention", "use --device cpu");
  note_little_memory(check_cpu_room(plan.device, needed, "looking at attention", "free some memory"));
  Transformer model(model_config, plan);
  note_slow_cpu(plan.device);
  const LayerWeights layer = attention_weights(model, loaded.parameters(), window.bytes, options.layer - 1,
                                               std::min(options.pixels, kMostCells));
  if (options.json) {
    print_json(as_json(layer, options, loaded, window.name));
  } else {
    print_result("run        {}, step {}\n", options.target, loaded.step());
    print_result("data       {}\n", window.name);
    print_result("layer      {} of {}, {} queries of each head\n\n", options.layer, model_config.layers,
                 layer.queries);
    print_heads(layer);
  }
  flush_results();
  picture_of(layer, options.pixels).save(options.attention);
  if (!options.json) print_result("\ndrawn      {}\n", options.attention);
  return 0;
}

}  // namespace longstride::cli
