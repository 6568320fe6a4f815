// The whole configuration of one experiment: the content of its TOML file, section by section.
#pragma once

#include <set>
#include <string>

#include "longstride/data/config.h"
#include "longstride/device/device.h"
#include "longstride/model/config.h"

namespace longstride {

// More would overflow the count of windows.
inline constexpr int64_t kMostSteps = 1'000'000'000'000;

struct TrainConfig {
  std::string recipe = "auto";  // see choices.h
  int64_t steps = 1000;
  double epochs = 0;        // > 0 replaces steps
  double minutes = 0;       // > 0: the schedule ends when this much time has been spent (not repeatable)
  int64_t batch = 4;        // sequences in a step
  int64_t micro_batch = 0;  // sequences at a time; 0: all of the batch
  std::string optimizer = "adam";
  double learning_rate = 5e-4;
  double muon_rate = 0.02, muon_momentum = 0.95;
  std::string newton_schulz = "jordan";
  int64_t warmup = -1;   // see warmup_steps()
  int64_t schedule = 2;  // 1 in runs that began before this field existed
  std::string decay = "cosine";
  std::string context_schedule;  // both: see stages.h
  std::string pattern_schedule;
  double final_rate = 0;  // fraction of learning_rate at the end
  double weight_decay = 0.01;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double clip = 1.0;
  double skip_spikes = 0;  // deviations, see train/spike_watch.h; 0: no step is skipped
  int64_t most_skips = 10;
  int64_t verify_every = 0;  // see train/verified_step.h; 0: never
  double dropout = 0;
  double average = 0.999;
  int64_t seed = 1;
  std::string activations = "recompute";
  int64_t log_every = 10;
  int64_t validate_every = 500;
  int64_t validate_bytes = 1 << 20;
  int64_t checkpoint_every = 500;
  double checkpoint_minutes = 10;
  int64_t keep_last = 2;

  void fields(FieldList& list);
  int64_t micro() const { return micro_batch > 0 ? micro_batch : batch; }
};

struct ComputeConfig {
  std::string device = "auto";
  std::string precision = "auto";
  int64_t threads = 0;
  std::string instructions = "auto";
  int64_t sequence_ranks = 1;
  bool shard_optimizer = false;

  void fields(FieldList& list);
};

struct RunConfig {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  ComputeConfig compute;

  // All fields of all sections; the list points into this object.
  FieldList fields();
  // Throws Error for values that are each in range but do not go together. If the config leaves something
  // open (choices.h), checks only the ranges.
  void check() const;
  // Fields that the file does not name have the values of `defaults`. Adds the keys that the file names to
  // `named`.
  static RunConfig from_file(const std::string& path, RunConfig defaults = {},
                             std::set<std::string>* named = nullptr);
  std::string to_toml(bool with_help) const;
};

// The precision of matrix products for "auto", "f32", "bf16" or, on a GPU, "f16". Throws Error.
DType product_precision(const ComputeConfig& config, Device device);

}  // namespace longstride
