// The directory of one run, and models loaded from it.
//
//   config.toml         the whole configuration, every field
//   model.safetensors   the weights to use: those of the best checkpoint so far, or the newest without
//                       validation
//   checkpoints/...     see checkpoint/checkpoint.h
//   metrics.jsonl, events...  the curves
//   commands.jsonl      the commands that trained the run
#pragma once

#include <string>
#include <vector>

#include "longstride/checkpoint/checkpoint.h"
#include "longstride/model/quantized_parameters.h"
#include "longstride/model/transformer.h"
#include "longstride/run/config.h"

namespace longstride {

// Whether `path` is a directory that holds a run.
bool is_run_directory(const std::string& path);

// The state of a directory, for a command that begins a run or goes on with one.
enum class RunDirectoryState {
  fresh,     // missing, empty, or with only what a killed start left
  begun,     // a configuration, and no sign that a checkpoint was ever saved
  trained,   // checkpoints
  stripped,  // the run was trained, but its checkpoints are gone
  foreign,   // something else
};
RunDirectoryState state_of_directory(const std::string& path);

// The configuration of a run. Throws Error if `path` is not a run directory.
RunConfig read_run_config(const std::string& path);
// Rewrites config.toml atomically.
void write_run_config(const std::string& path, const RunConfig& config);

// Appends the words of a command that trains the run, with the time and the current folder, as a line of
// RUN/commands.jsonl. Throws Error.
void record_command(const std::string& path, const std::vector<std::string>& words);

// Which of a run's weights to load.
struct WeightChoice {
  int64_t step = -1;  // a checkpoint's step; -1: the best by validation, else the newest
  bool int8 = false;  // weights of products in eight bits
  // If the run holds several weights of that step: those with this digest. "": any.
  std::string digest = {};
};

// The text by which a digest covers the model itself: the values of the [model] section, one on each line. A
// field that a later version adds must not change the text of older models.
std::string identity_of(ModelConfig model);

// The digest of a model, as LoadedModel::digest(), from a file of its weights. Reads all of the file.
std::string weights_digest(const ModelConfig& model, const SafetensorsFile& weights);

// A run's model ready for inference.
class LoadedModel {
 public:
  // Reads weights from the run's checkpoint; if that is gone, from pinned weights or the run's
  // model.safetensors. `compute` replaces the run's own section. Throws Error.
  LoadedModel(const std::string& run_directory, const ComputeConfig& compute, const WeightChoice& choice);

  // A model that was trained in this process and has no run. Copies `weights`, which are of this step and
  // have the names and shapes of parameter_table(). Throws Error.
  LoadedModel(const RunConfig& config, int64_t step, const std::vector<NamedTensor>& weights);

  // A model out of a file that anybody may have written: `weights` are of this step, and their names and shapes
  // explain `config` before anything is allocated for it. Throws Error.
  LoadedModel(const RunConfig& config, int64_t step, const SafetensorsFile& weights, bool int8);

  const RunConfig& config() const { return config_; }
  Device device() const { return device_; }
  DType product() const { return product_; }
  // With int8, weights of products are the values that the eight bits mean, in the compute dtype.
  const ModelParameters& parameters() const { return parameters_; }
  // All weights in f32 on the device, whatever the products' precision; with int8 and products in f32 those of
  // products are the values that the eight bits mean.
  const ParameterStore& weights() const { return weights_; }
  // The eight bits themselves; null without int8.
  const QuantizedParameters* quantized() const { return quantized_.empty() ? nullptr : &quantized_; }
  int64_t step() const { return step_; }  // at which the weights were saved
  // Tells two models apart: the checksum, in hexadecimal digits, of the tensors in the weights file and of
  // the values of the [model] section. It does not depend on the form in which the weights are used.
  const std::string& digest() const { return digest_; }
  // Keeps these weights in RUN/pins for a file that can be read with no others. Returns "" or the reason why
  // that failed.
  std::string pin(const std::string& run_directory) const;
  // The file of the weights; "" if there is none.
  const std::string& file() const { return file_; }

 private:
  void choose_device();
  void take(const SafetensorsFile& weights, bool int8);
  // Makes everything that depends on `weights_`, which are on the device.
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
