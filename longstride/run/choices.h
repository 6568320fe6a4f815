// Chooses what a config leaves open. How to learn follows from what else the config says; the shape of the
// model follows from the kind and size of the data, the device and the time. A run is saved with the chosen
// values, as plain ones.
#pragma once

#include <set>
#include <string>

#include "longstride/data/corpus.h"
#include "longstride/run/config.h"

namespace longstride {

// Keys that a config file or a command line gives a value, as "train.batch".
using NamedKeys = std::set<std::string>;

// There are two recipes. "paper" is that of the Sparse Transformer (Adam, learned positions), and the
// defaults of RunConfig are its values. "fast" is what learns most in the same time here (rotary positions,
// normalised queries and keys, mixed values, a short convolution, Muon, a growing context). docs/training.md
// has the comparison.
//
// train.recipe = "auto" means "fast", unless the config names one of the recipe's own fields (which kind of
// positions, which optimizer, which rates, ...). Such a config is taken at its word, and the rest is the
// paper's.
bool means_fast_recipe(const RunConfig& config, const NamedKeys& named);
// The field that makes a config with train.recipe = "auto" the paper's; "" if there is none.
std::string named_recipe_field(const NamedKeys& named);

// The values of the fields that a config of this recipe does not name. Those of the fast recipe leave the
// shape of the model and the time open.
RunConfig paper_defaults();
RunConfig fast_defaults();

// The defaults of a config that names these keys: paper_defaults() or fast_defaults(). A config that names
// any length of training gets no length from the defaults.
RunConfig defaults_of(const RunConfig& config, const NamedKeys& named);

// Whether something is open: data.kind, activations or context_schedule "auto", a batch of 0, or the model's
// shape.
bool is_open(const RunConfig& config);
// Whether an extent is 0 or the pattern "".
bool shape_is_open(const ModelConfig& model);

// Replaces data.kind = "auto" by what most of the data look like; text if they look like nothing in
// particular.
void choose_kind(DataConfig& config);
// Chooses everything that is open, for data whose kind is known. Throws Error if nothing fits what the
// config names.
void choose_shape(RunConfig& config, const Splits& splits);
// The same for a model whose shape is not open: the other choices do not need the data.
void choose_training(RunConfig& config);

// The fields of `after` that differ, as "model.context = 256, train.batch = 8".
std::string changes_of(RunConfig before, RunConfig after);

}  // namespace longstride
