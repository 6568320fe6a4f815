// The update of all parameters (contract: longstride/ops/update.h), slice by slice. The same bits for any
// number of threads. No scratch.
#include "longstride/ops/update.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "longstride/ops/cpu/slices.h"

namespace longstride::cpu {

template <>
void compute(const OpContext&, const AddLosses& t) {
  const float* values = t.losses.as<float>();
  double sum = 0;  // apart, so that sums of several calls are those of several ranks
  for (int64_t i = 0; i < t.losses.count(); ++i) sum += values[i];
  t.control->losses += sum;
}

template <>
void compute(const OpContext&, const SumLosses& t) {
  double sum = t.of_ranks[0];
  for (int rank = 1; rank < t.ranks; ++rank) sum += t.of_ranks[rank];
  t.control->losses = sum;
}

// A chunk is a parameter; lists of them are for GPUs.
template <>
void compute(const OpContext&, const LayOutUpdate& t) {
  *t.bytes = 0;
  *t.chunks = static_cast<int64_t>(t.slices.size() + t.matrices.size());
}

template <>
void compute(const OpContext& context, const SquaresOfChunks& t) {
  double* to = t.squares;
  const auto take = [&](int64_t offset, int64_t count) {
    const bool here = offset >= t.begin && offset < t.end;
    *to++ = here ? squares_of(context, slice_of(t.g, offset, count)) : 0;
  };
  for (const ParameterSlice& slice : t.table.slices()) take(slice.offset, slice.count);
  for (const MuonMatrix& matrix : t.table.matrices()) take(matrix.offset, matrix.count());
}

template <>
void compute(const OpContext&, const SumSquares& t) {
  double sum = 0;
  for (int64_t chunk = 0; chunk < t.table.chunks(); ++chunk) {
    double of_chunk = 0;
    for (int rank = 0; rank < t.ranks; ++rank) of_chunk += t.squares[rank * t.table.chunks() + chunk];
    sum += of_chunk;
  }
  t.control->squares = sum;
}

template <>
void compute(const OpContext& context, const GradientSquares& t) {
  std::vector<double> squares(static_cast<size_t>(t.table.chunks()));
  compute(context, SquaresOfChunks{t.table, t.g, 0, t.g.count(), squares.data()});
  compute(context, SumSquares{t.table, squares.data(), 1, t.control});
}

template <>
void compute(const OpContext&, const DecideUpdate& t) {
  UpdateControl& control = *t.control;
  control.norm = std::sqrt(control.squares) / control.loss_scale;
  const double clipped = control.clip > 0 ? std::min(1.0, control.clip / (control.norm + 1e-12)) : 1.0;
  control.gradient_scale = clipped / control.loss_scale;
  control.applied =
      std::isfinite(control.norm) && std::isfinite(control.losses) && control.losses <= control.most_losses;
}

template <>
void compute(const OpContext& context, const ApplyAdam& call) {
  const UpdateTensors& t = call.tensors;
  const UpdateControl* const control = call.control;
  AdamStep adam = control->adam;
  adam.gradient_scale = control->gradient_scale;
  for (const ParameterSlice& slice : call.table.slices()) {
    const auto part = [&](const Tensor& flat) { return slice_of(flat, slice.offset, slice.count); };
    const auto kept = [&](const Tensor& flat) { return slice_of(flat, slice.kept(), slice.count); };
    adam.decay = slice.decay ? control->adam.decay : 0;
    if (control->applied != 0)
      compute(context,
              AdamUpdate{adam, part(t.w), part(t.g), kept(t.m), slice_of(t.v, slice.second(), slice.count),
                         kept(t.average), slice_of(t.products, slice.product_offset, slice.count)});
    fill_zero(part(t.g));
  }
}

}  // namespace longstride::cpu
