// The optimizer's step over all parameters at once: what it is told and what it decides live in one small
// block of memory of the device, so that a whole step can be queued without a look at its numbers.
//
// The norm of the gradients g is ||g|| / loss_scale; they are clipped to `clip`, and then each parameter
// takes the step of adam.h, or, if it is one of the table's matrices, that of muon.h. If the norm or the sum
// of the losses is not finite, no weight, moment or average changes. Either way the gradients are zero
// afterwards.
#pragma once

#include <span>
#include <vector>

#include "longstride/ops/adam.h"
#include "longstride/ops/muon.h"

namespace longstride {

// What a step is told, and what came of it.
struct UpdateControl {
  // Told. In `adam`, decay holds for slices that decay, ema if there is an average; gradient_scale is not
  // read.
  AdamStep adam;
  MuonStep muon;         // its average decays as Adam's
  double clip = 0;       // largest norm; 0: none
  float loss_scale = 1;  // what the gradients have been multiplied with
  // Told as 0 before the first add_losses.
  double losses = 0;  // their sum
  // Decided.
  double norm = 0;  // of the gradients, before clipping
  int applied = 0;  // 1: the parameters took the step
};

// One parameter that Adam moves, in buffers of all of them, in elements. Its second moment and its copy in
// the products' dtype may lie elsewhere.
struct ParameterSlice {
  int64_t offset = 0, count = 0;
  bool decay = false;
  int64_t product_offset = -1;  // -1: none
  int64_t second_offset = -1;   // -1: `offset`
  int64_t second() const { return second_offset < 0 ? offset : second_offset; }
};

// What Adam moves and what Muon moves, as the device reads them, and room for sums on the way.
class UpdateTable {
 public:
  UpdateTable() = default;
  // Newton-Schulz takes the steps of `kind` in `orthogonal` (newton_schulz_dtype()).
  UpdateTable(Device device, std::span<const ParameterSlice> slices,
              std::span<const MuonMatrix> matrices = {}, DType orthogonal = DType::f32,
              NewtonSchulz kind = NewtonSchulz::jordan);
  static int64_t bytes(Device device, std::span<const ParameterSlice> slices,
                       std::span<const MuonMatrix> matrices = {});
  // Of matrices alone and without memory, for scratch_bytes().
  static UpdateTable to_measure(std::span<const MuonMatrix> matrices, DType orthogonal);

  const std::vector<ParameterSlice>& slices() const { return slices_; }
  const std::vector<MuonMatrix>& matrices() const { return matrices_; }  // in their working order
  DType orthogonal() const { return orthogonal_; }
  NewtonSchulz kind() const { return kind_; }
  int64_t chunks() const { return chunks_; }  // pieces that the GPU takes at a time
  void* data() const { return buffer_.data(); }
  Device device() const { return buffer_.device(); }

 private:
  std::vector<ParameterSlice> slices_;
  std::vector<MuonMatrix> matrices_;
  DType orthogonal_ = DType::f32;
  NewtonSchulz kind_ = NewtonSchulz::jordan;
  int64_t chunks_ = 0;
  Buffer buffer_;
};

// Flat, equally laid out buffers of all parameters, f32 and contiguous; `average` may be empty. `v` is laid
// out by second_offset. `products` is empty or f32, bf16 or, on a GPU, f16.
struct UpdateTensors {
  Tensor w, g, m, v, average, products;
};

// control->losses += the sum of `losses`, f32, in double and in a fixed order. `control` lies on the device.
struct AddLosses {
  Tensor losses;
  UpdateControl* control;

  const char* name() const { return "add_losses"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The norm, the decision and Adam's step. `control` lies on the device.
struct UpdateWithAdam {
  const UpdateTable& table;
  const UpdateTensors& tensors;
  UpdateControl* control;

  const char* name() const { return "update_parameters"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The step of the table's matrices, after UpdateWithAdam, which has decided.
struct UpdateWithMuon {
  const UpdateTable& table;
  const UpdateTensors& tensors;
  UpdateControl* control;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "muon"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The step of all parameters: both of the above.
void update_parameters(const OpContext& context, const UpdateTable& table, const UpdateTensors& tensors,
                       UpdateControl* control);
// Bytes of scratch that it uses for these matrices.
int64_t update_scratch_bytes(Device device, std::span<const MuonMatrix> matrices, DType orthogonal);

// What a device keeps of an UpdateTable: *bytes of it in *chunks pieces, written to `data` unless that is
// null.
struct LayOutUpdate {
  std::span<const ParameterSlice> slices;
  std::span<const MuonMatrix> matrices;
  void* data;
  int64_t *bytes, *chunks;
};

}  // namespace longstride
