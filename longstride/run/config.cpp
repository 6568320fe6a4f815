#include "longstride/run/config.h"

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/device/device.h"
#include "longstride/device/instructions.h"
#include "longstride/run/choices.h"
#include "longstride/run/stages.h"

namespace longstride {

void TrainConfig::fields(FieldList& list) {
  list.add("recipe", recipe,
           "how to learn, where the config does not say: fast = rotary positions, normalised queries and "
           "keys, mixed values, a short convolution, Muon, a growing context, and a model as large as data "
           "and time allow; paper = as the Sparse Transformer; auto = fast, but paper if the config names "
           "positions, an optimizer or a rate")
      .one_of({"auto", "fast", "paper"});
  list.add("steps", steps, "optimizer steps").at_least(1).at_most(kMostSteps);
  list.add("epochs", epochs, "passes over the training data; above 0 it replaces steps")
      .at_least(0)
      .at_most(1e9);
  list.add("minutes", minutes,
           "time budget that ends the schedule early; above 0 a run cannot be repeated exactly")
      .at_least(0)
      .at_most(1e8);
  list.add("batch", batch, "sequences a step; 0 = chosen").at_least(0).at_most(1 << 20);
  list.add("micro_batch", micro_batch, "sequences computed at a time, gradients are accumulated; 0 = batch")
      .at_least(0);
  list.add(
          "optimizer", optimizer,
          "adam: for every weight; muon: Muon for the matrices of the blocks, Adam for all else; stays as it "
          "is once a run has checkpoints")
      .one_of({"adam", "muon"});
  list.add("learning_rate", learning_rate, "peak learning rate of Adam").at_least(0).at_most(10);
  list.add("muon_rate", muon_rate, "peak learning rate of Muon, on the same schedule")
      .at_least(0)
      .at_most(10);
  list.add("muon_momentum", muon_momentum, "Muon's decay of its momentum").at_least(0).at_most(0.999999);
  list.add("newton_schulz", newton_schulz,
           "Muon's steps to a matrix whose singular values are all near 1: jordan: five of one polynomial "
           "(Jordan, 2024); polar: four, each of its own (Polar Express, 2025); stays as it is once a run "
           "has checkpoints")
      .one_of({"polar", "jordan"});
  list.add("warmup", warmup,
           "steps of linear warm-up; -1 = a tenth of the run, 100 steps at most; the paper has 5000")
      .at_least(-1)
      .at_most(kMostSteps);
  list.add("schedule", schedule,
           "2: the cosine begins where the warm-up ends; 1: with the run, whose first tenth at most warms "
           "up, as "
           "runs of older versions do; stays as it is once a run has checkpoints")
      .at_least(1)
      .at_most(2);
  list.add("decay", decay, "learning rate after the warm-up").one_of({"cosine", "linear", "constant"});
  list.add("final_rate", final_rate, "fraction of learning_rate that cosine and linear end at")
      .at_least(0)
      .at_most(1);
  list.add(
      "context_schedule", context_schedule,
      "shorter contexts at first, as \"1024 until 0.25; 4096 until 0.75\" of the run, then model.context, "
      "which each must divide; bytes a step stay the same; empty = model.context throughout; auto = chosen");
  list.add("pattern_schedule", pattern_schedule,
           "other patterns at first, as \"block:128 until 0.1; window:256 until 0.5\" of the run, then "
           "model.pattern; empty = model.pattern throughout");
  list.add("weight_decay", weight_decay,
           "decoupled, on tensors of two axes; times the rate of the optimizer that moves them")
      .at_least(0)
      .at_most(10);
  list.add("beta1", beta1, "Adam's decay of the first moment").at_least(0).at_most(0.999999);
  list.add("beta2", beta2, "Adam's decay of the second moment").at_least(0).at_most(0.999999);
  list.add("epsilon", epsilon, "Adam's epsilon").at_least(0).at_most(1);
  list.add("clip", clip, "largest norm of the gradient; 0 = no clipping").at_least(0).at_most(1e9);
  list.add("skip_spikes", skip_spikes,
           "skip steps whose loss is above the median of the last 64 by so many deviations, or whose loss or "
           "gradient is not finite: nothing changes, and they are counted; 6 is careful; 0 = off")
      .at_least(0)
      .at_most(1e6);
  list.add("most_skips", most_skips, "with skip_spikes: so many skipped steps in a row end the training")
      .at_least(1)
      .at_most(1000);
  list.add(
          "verify_every", verify_every,
          "take every so many steps twice from the same state; other bits the second time are a fault of the "
          "machine and end the training; 0 = never")
      .at_least(0);
  list.add("dropout", dropout, "probability, where a branch joins the residual stream")
      .at_least(0)
      .at_most(0.99);
  list.add("average", average, "decay of the averaged weights that evaluation and samples use; 0 = none")
      .at_least(0)
      .at_most(0.9999999);
  list.add("seed", seed, "of initialisation, batches and dropout").at_least(0);
  list.add("activations", activations,
           "recompute each block in the backward pass, also offload its input to the CPU's memory, or keep "
           "its activations; auto = keep where memory allows")
      .one_of({"auto", "recompute", "offload", "keep"});
  list.add("log_every", log_every, "steps between lines of metrics").at_least(1);
  list.add("validate_every", validate_every, "steps between validations; 0 = at the end only").at_least(0);
  list.add("validate_bytes", validate_bytes, "validation bytes used during training; 0 = all").at_least(0);
  list.add("checkpoint_every", checkpoint_every, "steps between checkpoints; 0 = by time and at the end only")
      .at_least(0);
  list.add("checkpoint_minutes", checkpoint_minutes,
           "a checkpoint also after this many minutes without one; 0 = by steps only")
      .at_least(0)
      .at_most(1e8);
  list.add("keep_last", keep_last, "newest checkpoints kept besides the best").at_least(1);
}

void ComputeConfig::fields(FieldList& list) {
  list.add("device", device, "cpu, cuda, cuda:N or auto");
  list.add("precision", precision,
           "of matrix products and of the activations between them; auto = bf16 where the hardware has it; "
           "f16 "
           "on a GPU only")
      .one_of({"auto", "f32", "bf16", "f16"});
  list.add("threads", threads, "CPU threads; 0 = all").at_least(0).at_most(4096);
  list.add("instructions", instructions,
           "most that may be used of the CPU's instruction sets; auto = $LONGSTRIDE_INSTRUCTIONS, else all")
      .one_of(instruction_names());
  list.add("sequence_ranks", sequence_ranks,
           "of several ranks, how many share each sequence; a process by itself has all of it")
      .at_least(1)
      .at_most(1024);
  list.add("shard_optimizer", shard_optimizer,
           "several ranks share the optimizer: each keeps the moments and averages of a part of the weights "
           "and moves it");
}

FieldList RunConfig::fields() {
  FieldList list;
  list.section("model");
  model.fields(list);
  list.section("data");
  data.fields(list);
  list.section("train");
  train.fields(list);
  list.section("compute");
  compute.fields(list);
  return list;
}

void RunConfig::check() const {
  RunConfig copy = *this;
  const FieldList list = copy.fields();  // named: a temporary would end before the loop
  for (const Field& field : list.all()) field.check();
  if (is_open(*this)) return;
  model.check();
  LONGSTRIDE_CHECK(train.batch % train.micro() == 0,
                   "train.micro_batch = {} does not divide train.batch = {}", train.micro(), train.batch);
  stages_of(*this);
  product_precision(compute, parse_device(compute.device));
}

RunConfig RunConfig::from_file(const std::string& path, RunConfig config, std::set<std::string>* named) {
  const std::vector<std::string> keys = read_toml_file(path, config.fields());
  if (named != nullptr) named->insert(keys.begin(), keys.end());
  return config;
}

std::string RunConfig::to_toml(bool with_help) const {
  RunConfig copy = *this;
  return longstride::to_toml(copy.fields(), with_help);
}

DType product_precision(const ComputeConfig& config, Device device) {
  if (config.precision == "auto")
    return device.kind == DeviceKind::cuda || cpu_has_bf16() ? DType::bf16 : DType::f32;
  const DType product = parse_dtype(config.precision);
  LONGSTRIDE_CHECK(product != DType::f16 || device.kind == DeviceKind::cuda,
                   "compute.precision = \"f16\" needs a GPU; use bf16 or f32 with compute.device = \"{}\"",
                   config.device);
  return product;
}

}  // namespace longstride
