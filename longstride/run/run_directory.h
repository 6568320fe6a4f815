// The directory of one run, and models loaded from it.
//
//   config.toml         the whole configuration, every field
//   model.safetensors   the weights to use: those of the best checkpoint so far, or the newest without
//                       validation
//   checkpoints/...     see checkpoint/checkpoint.h
//   metrics.jsonl, events...  the curves
#pragma once

#include <string>
#include <vector>

#include "longstride/checkpoint/checkpoint.h"
#include "longstride/model/quantized_parameters.h"
#include "longstride/model/transformer.h"
#include "longstride/run/config.h"

namespace longstride {

// Is `path` a directory that holds a run?
bool is_run_directory(const std::string& path);

// What a directory holds, as one that begins or goes on with a run sees it.
enum class RunDirectoryState {
  fresh,     // nothing: it is missing, empty, or has only what a start left that was killed
  begun,     // a configuration, and no sign that a checkpoint was ever saved
  trained,   // checkpoints
  stripped,  // a run that was trained, but has no checkpoint any more
  foreign,   // something else
};
RunDirectoryState state_of_directory(const std::string& path);

// The configuration of a run. Throws Error if `path` is no run directory.
RunConfig read_run_config(const std::string& path);
// Rewrites config.toml atomically.
void write_run_config(const std::string& path, const RunConfig& config);

// Which of a run's weights to load.
struct WeightChoice {
  int64_t step = -1;  // a checkpoint's step; -1: the best by validation, else the newest
  bool int8 = false;  // weights of products in eight bits
  // If not empty: of several weights of that step that the run holds, those with this digest.
  std::string digest = {};
};

// What a digest says of the model besides its weights: the [model] section's values, a line each. A field
// that a later version adds must leave that of older models alone.
std::string identity_of(ModelConfig model);

// A run's model ready for inference.
class LoadedModel {
 public:
  // Reads weights from the run's checkpoint; where it is gone, from those that were pinned or from the run's
  // model.safetensors. `compute` overrides the run's own section. Throws Error.
  LoadedModel(const std::string& run_directory, const ComputeConfig& compute, const WeightChoice& choice);

  // A model that was trained in this process, without a run: copies `weights`, named and shaped as
  // parameter_table() says, of this step. Throws Error.
  LoadedModel(const RunConfig& config, int64_t step, const std::vector<NamedTensor>& weights);

  const RunConfig& config() const { return config_; }
  Device device() const { return device_; }
  DType product() const { return product_; }
  // With int8, weights of products are what the eight bits stand for, in the products' dtype.
  const ModelParameters& parameters() const { return parameters_; }
  // The eight bits themselves; null without int8.
  const QuantizedParameters* quantized() const { return quantized_.empty() ? nullptr : &quantized_; }
  int64_t step() const { return step_; }  // at which the weights were saved
  // Tells two models apart: the checksum, in hexadecimal digits, of the tensors in the weights file and of
  // the [model] section's values. The form that the weights are used in is no part of it.
  const std::string& digest() const { return digest_; }
  // Keeps these weights in RUN/pins for a file that can be read with no others; "" or the reason why that
  // failed.
  std::string pin(const std::string& run_directory) const;

 private:
  void choose_device();
  // From `weights_`, which are on the device: all that depends on them.
  void make_products(bool int8);

  RunConfig config_;
  Device device_;
  DType product_ = DType::f32;
  int64_t step_ = 0;
  std::string digest_, file_;
  ParameterStore weights_, products_;
  QuantizedParameters quantized_;
  ModelParameters parameters_;
};

}  // namespace longstride
