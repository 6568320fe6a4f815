// What a config leaves open is chosen here: how to learn, from what else the config says, and the shape of
// the model, from the kind and size of the data, the device and the time. A run is saved with what was
// chosen, as plain values.
#pragma once

#include <set>
#include <string>

#include "longstride/data/corpus.h"
#include "longstride/run/config.h"

namespace longstride {

// Keys that a config file or a command line gives a value, as "train.batch".
using NamedKeys = std::set<std::string>;

// Two recipes: "paper", that of the Sparse Transformer (Adam, learned positions), which the defaults of
// RunConfig are, and "fast", what learns most in the same time here (rotary positions, normalised queries and
// keys, mixed values, a short convolution, Muon, a growing context). docs/training.md has the comparison.
//
// train.recipe = "auto" means "fast", unless one of the recipe's own fields (which kind of positions, which
// optimizer, which rates, ...) is among the named: such a config is taken at its word, and the rest is the
// paper's.
bool means_fast_recipe(const RunConfig& config, const NamedKeys& named);
// The field by which a config of train.recipe = "auto" is the paper's; "" if there is none.
std::string named_recipe_field(const NamedKeys& named);

// Where a config of this recipe begins: fields that it does not name keep these values. Those of the fast
// recipe leave the shape of the model and the time open.
RunConfig paper_defaults();
RunConfig fast_defaults();

// Where a config that names these keys begins: with paper_defaults() or fast_defaults(), of which the length
// is the config's own as soon as it names one.
RunConfig defaults_of(const RunConfig& config, const NamedKeys& named);

// Something is open: data.kind, activations or context_schedule "auto", a batch of 0, or the model's shape.
bool is_open(const RunConfig& config);
// An extent of 0, or a pattern of "".
bool shape_is_open(const ModelConfig& model);

// data.kind = "auto" becomes what most of the data look like; text if they look like nothing in particular.
void choose_kind(DataConfig& config);
// Chooses all that is open, for data whose kind is known. Throws Error if what the config names fits nothing.
void choose_shape(RunConfig& config, const Splits& splits);
// The same for a model whose shape is not open: what is left does not ask for the data.
void choose_training(RunConfig& config);

// Fields in which `after` differs, as "model.context = 256, train.batch = 8".
std::string changes_of(RunConfig before, RunConfig after);

}  // namespace longstride
