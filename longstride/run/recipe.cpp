// Which recipe a config means, and the values with which each recipe begins.
#include <algorithm>
#include <array>
#include <string_view>

#include "longstride/ops/causal_convolution.h"
#include "longstride/run/choices.h"

namespace longstride {

namespace {

// A config that sets one of these has its own recipe.
constexpr std::array<std::string_view, 20> kRecipeFields{
    "model.positions",      "model.position_axes", "model.qk_norm",       "model.init",
    "model.value_residual", "model.convolution",   "train.newton_schulz", "train.optimizer",
    "train.learning_rate",  "train.muon_rate",     "train.muon_momentum", "train.warmup",
    "train.schedule",       "train.decay",         "train.final_rate",    "train.weight_decay",
    "train.beta1",          "train.beta2",         "train.epsilon",       "train.average"};

}  // namespace

std::string named_recipe_field(const NamedKeys& named) {
  const auto* field = std::find_if(kRecipeFields.begin(), kRecipeFields.end(),
                                   [&](std::string_view key) { return named.contains(std::string(key)); });
  return field == kRecipeFields.end() ? "" : std::string(*field);
}

bool means_fast_recipe(const RunConfig& config, const NamedKeys& named) {
  if (config.train.recipe != "auto") return config.train.recipe == "fast";
  return named_recipe_field(named).empty();
}

RunConfig paper_defaults() {
  RunConfig config;
  config.train.recipe = "paper";
  return config;
}

// Measured with 0.7M parameters on a CPU and 95M on a GPU (docs/results.md): one set of rates is good for
// all. A decay to zero does what an average of the weights would do.
RunConfig fast_defaults() {
  RunConfig config;
  ModelConfig& model = config.model;
  model.positions = "rotary";
  model.qk_norm = true;
  model.value_residual = 0.5;
  model.convolution = kConvolutionTaps;
  model.init = "released";
  model.context = model.layers = model.heads = model.width = 0;
  model.pattern = "";
  config.data.kind = "auto";
  TrainConfig& train = config.train;
  train.recipe = "fast";
  train.steps = kMostSteps;
  train.minutes = 10;
  train.epochs = 12;  // ends training on small data before they are learnt by heart; not measured
  train.batch = 0;
  train.optimizer = "muon";
  train.muon_rate = 0.02;
  train.learning_rate = 6e-3;
  train.decay = "linear";
  train.weight_decay = 0.1;
  train.beta2 = 0.95;
  train.average = 0;
  train.context_schedule = "auto";
  train.activations = "auto";
  return config;
}

RunConfig defaults_of(const RunConfig& config, const NamedKeys& named) {
  if (!means_fast_recipe(config, named)) return paper_defaults();
  RunConfig defaults = fast_defaults();
  // A config that names any length of training means that length alone.
  const bool steps = named.contains("train.steps"), epochs = named.contains("train.epochs");
  if (steps || epochs) defaults.train.minutes = 0;
  if (steps || named.contains("train.minutes")) defaults.train.epochs = 0;
  return defaults;
}

}  // namespace longstride
