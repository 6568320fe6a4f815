// The optimizer's step over all parameters at once:
//
//   GradientSquares        control->squares: the sum of squares of the gradients
//   DecideUpdate           from `squares` and `losses`: the norm ||g|| / loss_scale, whether the step is taken,
//                          and what the gradients are multiplied with so that their norm is at most `clip`
//   ApplyAdam, ApplyMuon   each parameter takes the step of adam.h or, if it is one of the table's matrices,
//                          that of muon.h. If the step is not taken, because the norm or the losses are not
//                          finite or the losses are more than `most_losses`, no weight, moment or average
//                          changes. Either way the gradients are zero afterwards.
//
// What the calls are told and what they find live in one small block of the device's memory, UpdateControl, so
// that a whole step can be queued without a look at its numbers. A decision depends on nothing but that block:
// where each of several ranks has the gradients of some parameters, the ranks add up squares and losses
// before it, and all of them decide the same.
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "longstride/ops/adam.h"
#include "longstride/ops/muon.h"

namespace longstride {

// What a step is told, and what came of it.
struct UpdateControl {
  // Told. In `adam`, decay holds for slices that decay, ema if there is an average; its gradient_scale is not
  // read.
  AdamStep adam;
  MuonStep muon;         // its average decays as Adam's
  double clip = 0;       // largest norm; 0: none
  float loss_scale = 1;  // what the gradients have been multiplied with
  double most_losses = std::numeric_limits<double>::infinity();  // a larger sum of losses: no step
  // Told as 0 before the first add_losses.
  double losses = 0;  // their sum
  // By GradientSquares.
  double squares = 0;
  // By DecideUpdate.
  double norm = 0;            // of the gradients, before clipping
  double gradient_scale = 1;  // what they are multiplied with
  int applied = 0;            // 1: the parameters take the step
};

// One parameter that Adam moves, in buffers of all of them, in elements. Its moments, its average and its copy
// in the products' dtype may lie elsewhere.
struct ParameterSlice {
  int64_t offset = 0, count = 0;
  bool decay = false;
  int64_t product_offset = -1;  // -1: none
  int64_t second_offset = -1;   // of the second moment; -1: `offset`
  int64_t kept_offset = -1;     // of the first moment and the average; -1: `offset`
  int64_t second() const { return second_offset < 0 ? offset : second_offset; }
  int64_t kept() const { return kept_offset < 0 ? offset : kept_offset; }
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
  // What chunks() of such a table is.
  static int64_t count_chunks(Device device, std::span<const ParameterSlice> slices,
                              std::span<const MuonMatrix> matrices);
  // Of matrices alone and without memory, for scratch_bytes().
  static UpdateTable to_measure(std::span<const MuonMatrix> matrices, DType orthogonal);

  const std::vector<ParameterSlice>& slices() const { return slices_; }
  const std::vector<MuonMatrix>& matrices() const { return matrices_; }  // in their working order
  DType orthogonal() const { return orthogonal_; }
  NewtonSchulz kind() const { return kind_; }
  int64_t chunks() const { return chunks_; }  // pieces whose squares are summed apart
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

// Flat buffers, f32 and contiguous: `w` and `g` of all parameters, laid out equally; `m` and `average`, which
// may be empty, by kept_offset, `v` by second_offset. `products` is empty or f32, bf16 or, on a GPU, f16.
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

// control->losses = the sum of the f64 numbers `of_ranks`, from the left. Both lie on the device.
struct SumLosses {
  const double* of_ranks;
  int ranks;
  UpdateControl* control;

  const char* name() const { return "sum_losses"; }
  OpWork work() const { return {}; }
  void check(const Arguments& arguments) const {}
};

// control->squares = the sum of squares of the gradients of all parameters, in double and in a fixed order, loss
// scale included. Not finite if a gradient is not.
struct GradientSquares {
  const UpdateTable& table;
  const Tensor& g;  // f32, contiguous
  UpdateControl* control;

  const char* name() const { return "gradient_squares"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The same where each of several ranks has the gradients of some parameters, in two calls. First the sum of
// squares of each chunk of the table whose parameter begins in [begin, end) of `g`, and 0 for the others:
struct SquaresOfChunks {
  const UpdateTable& table;
  const Tensor& g;  // f32, contiguous
  int64_t begin, end;
  double* squares;  // table.chunks() numbers of the device's memory

  const char* name() const { return "squares_of_chunks"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// And then control->squares = the sum of the numbers of all ranks, in the order and so with the bits of
// GradientSquares, if each chunk is another than 0 on one rank at most.
struct SumSquares {
  const UpdateTable& table;
  const double* squares;  // (ranks, table.chunks()), of the device's memory
  int ranks;
  UpdateControl* control;

  const char* name() const { return "sum_squares"; }
  OpWork work() const { return {}; }
  void check(const Arguments& arguments) const {}
};

// Fills norm, gradient_scale and applied of `control`. What the other calls need of it besides is kept in the
// table.
struct DecideUpdate {
  const UpdateTable& table;
  UpdateControl* control;

  const char* name() const { return "decide_update"; }
  OpWork work() const { return {}; }
  void check(const Arguments& arguments) const {}
};

// Adam's step of the table's slices, as decided.
struct ApplyAdam {
  const UpdateTable& table;
  const UpdateTensors& tensors;
  UpdateControl* control;

  const char* name() const { return "update_parameters"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Muon's step of the table's matrices, as decided.
struct ApplyMuon {
  const UpdateTable& table;
  const UpdateTensors& tensors;
  UpdateControl* control;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "muon"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The step of all parameters: GradientSquares, DecideUpdate, ApplyAdam and ApplyMuon.
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
