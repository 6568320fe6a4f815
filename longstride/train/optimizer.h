// Weights and what training keeps beside them: gradients, the moments of Adam and Muon, the average, the
// products' copy.
#pragma once

#include <cstdint>
#include <optional>

#include "longstride/model/parameters.h"
#include "longstride/ops/update.h"
#include "longstride/run/config.h"

namespace longstride {

class Optimizer {
 public:
  // Initialises the weights from config.train.seed. Products are held once more in `product` if that is not
  // f32.
  Optimizer(const RunConfig& config, Device device, DType product, int ranks = 1);
  // Stays where it is: its ops' context points at its scratch.
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  const std::vector<ParameterSpec>& table() const { return table_; }
  const ModelParameters& parameters() const { return parameters_; }
  const ModelParameters& gradients() const { return gradient_roles_; }

  // Gradients of a micro-batch after the first (has_parts()), which the ops would add to those before in another
  // order than a sum of two has: add_part() adds them and leaves them zero. So the sum of several is the same
  // bits as that of several ranks with one each.
  const ModelParameters& part_gradients() const { return part_roles_; }
  void add_part() const;
  // Whether a step of this run has several micro-batches on each rank.
  static bool has_parts(const RunConfig& config, int ranks);
  // All gradients in one buffer, what lies between them included.
  const Tensor& flat_gradients() const { return gradients_.flat(); }
  // Where the gradients of block `layer` begin in it; those of all blocks follow each other, up to that of
  // `layers`. A short convolution's lie elsewhere.
  int64_t block_begin(int64_t layer) const { return block_begins_[static_cast<size_t>(layer)]; }

  // All weights and their averages are finite.
  bool finite() const;
  // What update() is to be told for the update number `step`, from 1.
  AdamStep adam(int64_t step, double rate) const;
  MuonStep muon(double rate) const;
  // One update of all weights (ops/update.h), queued on the device where `control` lies. Leaves the gradients
  // zero, as they are at first.
  void update(UpdateControl* control) const;
  // Device bytes of the moments.
  static int64_t moment_bytes(const RunConfig& config);
  // Device bytes of the update's table and scratch; weights, gradients and moments are not included.
  static int64_t working_bytes(const RunConfig& config, Device device, DType product);

  // Runs `action` with the weights that evaluation uses: the average if there is one.
  template <class Action>
  void with_evaluation_weights(Action action) {
    if (average_.empty()) return action(parameters_);
    refresh_products(average_);
    action(by_role(config_.model, average_, products_));
    refresh_products(weights_);
  }

  // For checkpoints: the weights to use, and all that resuming needs besides.
  std::vector<NamedTensor> model_tensors() const;
  std::vector<NamedTensor> state_tensors() const;
  // After the tensors have been filled from a checkpoint.
  void loaded();

 private:
  // What moves each parameter, as ops/update.h takes it.
  struct Moves {
    std::vector<ParameterSlice> adam;
    std::vector<MuonMatrix> muon;
  };
  // Offsets are those in the stores; a null store has none.
  static Moves moves(const RunConfig& config, const std::vector<ParameterSpec>& table,
                     const ParameterStore* weights, const ParameterStore* second,
                     const ParameterStore* products);
  void refresh_products(const ParameterStore& from) const;

  RunConfig config_;
  std::vector<ParameterSpec> table_;
  // `second_` is of what Adam moves.
  ParameterStore weights_, gradients_, part_, first_, second_, average_, products_;
  ModelParameters parameters_, gradient_roles_, part_roles_;
  std::vector<int64_t> block_begins_;  // layers + 1
  UpdateTable update_table_;
  Arena scratch_ = Arena::measuring({});
  OpContext context_;
};

}  // namespace longstride
