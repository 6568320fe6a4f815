// Weights and what training keeps beside them: gradients, the moments of Adam and Muon, the average, the
// products' copy.
//
// Several ranks may share the optimizer (compute.shard_optimizer). Then each keeps the moments and averages of its share of
// the parameters and moves it, and all receive the weights. Between steps the gradients, which are zero, are the room in
// which ranks gather what evaluation and checkpoints need of the others.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "longstride/dist/comm.h"
#include "longstride/dist/device_comm.h"
#include "longstride/model/parameters.h"
#include "longstride/ops/update.h"
#include "longstride/run/config.h"
#include "longstride/train/update_shares.h"

namespace longstride {

// A part of what a step changes.
struct FlatState {
  const char* name;  // for people
  Tensor tensor;
};

class Optimizer {
 public:
  // Initialises the weights from config.train.seed. Products are held once more in `product` if that is not
  // f32.
  Optimizer(const RunConfig& config, Device device, DType product, int ranks = 1, int rank = 0);
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

  // Before the first step of ranks that share the optimizer. `wait` waits for all queued work of the device, and
  // throws RankLost if a rank is gone.
  void join(std::shared_ptr<DeviceComm> devices, std::function<void()> wait);
  const UpdateShares& shares() const { return shares_; }
  bool shares_average() const { return shares_.is_shared() && config_.train.average > 0; }
  // The elements of each rank's share in flat_gradients(), as UpdateShares::begins(); empty if nothing is shared.
  std::vector<int64_t> share_begins() const;

  // All weights and their averages are finite.
  bool finite() const;
  // What update() is to be told for the update number `step`, from 1.
  AdamStep adam(int64_t step, double rate) const;
  MuonStep muon(double rate) const;
  // One update of all weights (ops/update.h), queued on the device where `control` lies. Leaves the gradients
  // zero, as they are at first.
  void update(UpdateControl* control) const;
  // Device bytes of the moments and of the average, of the rank that has most.
  static int64_t moment_bytes(const RunConfig& config, int ranks);
  static int64_t average_bytes(const RunConfig& config, int ranks);
  // Device bytes of the update's tables and scratch; weights, gradients and moments are not included.
  static int64_t working_bytes(const RunConfig& config, Device device, DType product, int ranks);

  // Runs `action` with the weights that evaluation uses: the average if there is one. Where that is shared, all ranks
  // call it.
  template <class Action>
  void with_evaluation_weights(Action action) {
    if (config_.train.average <= 0) return action(parameters_);
    const ParameterStore& store = shares_.is_shared() ? gradients_ : average_;
    if (shares_.is_shared()) gather_average();
    refresh_products(store);
    action(by_role(config_.model, store, products_));
    if (shares_.is_shared()) gradients_.zero();
    refresh_products(weights_);
  }

  // For checkpoints: the weights to use, and all that resuming needs besides. Where the optimizer is shared, of memory that
  // collect() or make_room() has made ready on rank 0.
  std::vector<NamedTensor> weights() const { return weights_.named(table_, ""); }
  std::vector<NamedTensor> model_tensors() const;
  std::vector<NamedTensor> state_tensors() const;
  // After the tensors have been filled from a checkpoint, or flat_state() from a copy.
  void loaded();
  // All of this rank that a step changes, but the products' copy.
  std::vector<FlatState> flat_state() const;

  // Of ranks that share the optimizer, for all of them to call: rank 0 gets copies of all moments and averages in memory of
  // the CPU, and each rank its share of what rank 0 has there, if it has anything.
  void collect();
  void distribute(Comm& comm);
  // Makes room for such copies, to be filled from a checkpoint; frees it.
  void make_room();
  void free_room() { whole_ = {}; }

 private:
  // What moves each parameter, as ops/update.h takes it.
  struct Moves {
    std::vector<ParameterSlice> adam;
    std::vector<MuonMatrix> muon;
  };
  // Offsets are those in the stores; a null store has none.
  // What the stores hold; null where only sizes matter.
  struct Stores {
    const ParameterStore *weights = nullptr, *first = nullptr, *second = nullptr, *products = nullptr;
  };
  static Moves moves(const RunConfig& config, const std::vector<ParameterSpec>& table, ParameterRange range,
                     const Stores& stores);
  void refresh_products(const ParameterStore& from) const;
  void update_share(UpdateControl* control) const;
  // Each rank's elements of `whole`, laid out as the weights, reach all ranks. Queued.
  void share(const Tensor& whole) const;
  void gather_average();
  // First moments, second moments, averages: those of this device, and where they are copied whole.
  enum Kept { kFirst, kSecond, kAverage, kKinds };
  const ParameterStore& kept(Kept kind) const;
  const ParameterStore& whole(Kept kind) const { return shares_.is_shared() ? whole_[kind] : kept(kind); }
  bool keeps(Kept kind, size_t index) const;

  RunConfig config_;
  std::vector<ParameterSpec> table_;
  UpdateShares shares_;
  // `second_` is of what Adam moves. Moments and averages are those of this rank's share.
  ParameterStore weights_, gradients_, part_, first_, second_, average_, products_;
  std::array<ParameterStore, kKinds> whole_;
  ModelParameters parameters_, gradient_roles_, part_roles_;
  std::vector<int64_t> block_begins_;  // layers + 1
  UpdateTable update_table_;           // of this rank's share
  // Where the optimizer is shared: all parameters, and the squares of their gradients, a row a rank.
  UpdateTable squares_table_;
  Buffer squares_;
  std::shared_ptr<DeviceComm> devices_;
  std::function<void()> wait_;
  Arena scratch_ = Arena::measuring({});
  OpContext context_;
};

}  // namespace longstride
