// The update of all parameters (contract: longstride/ops/update.h), slice by slice. The same bits for any
// number of threads. No scratch.
#include "longstride/ops/update.h"

#include <cmath>

#include "longstride/ops/cpu/slices.h"

namespace longstride::cpu {

template <>
void compute(const OpContext&, const AddLosses& t) {
  const float* values = t.losses.as<float>();
  double sum = 0;  // apart, so that sums of several calls are those of several ranks
  for (int64_t i = 0; i < t.losses.count(); ++i) sum += values[i];
  t.control->losses += sum;
}

// Lists are for GPUs.
template <>
void compute(const OpContext&, const LayOutUpdate& t) {
  *t.bytes = *t.chunks = 0;
}

template <>
void compute(const OpContext& context, const UpdateWithAdam& call) {
  const UpdateTensors& t = call.tensors;
  UpdateControl* const control = call.control;
  double squares = 0;
  for (const ParameterSlice& slice : call.table.slices())
    squares += squares_of(context, slice_of(t.g, slice.offset, slice.count));
  for (const MuonMatrix& matrix : call.table.matrices())
    squares += squares_of(context, slice_of(t.g, matrix.offset, matrix.count()));
  control->norm = std::sqrt(squares) / control->loss_scale;
  control->applied = std::isfinite(control->norm) && std::isfinite(control->losses);
  AdamStep adam = control->adam;
  adam.gradient_scale = gradient_scale(*control);
  for (const ParameterSlice& slice : call.table.slices()) {
    const auto part = [&](const Tensor& flat) { return slice_of(flat, slice.offset, slice.count); };
    adam.decay = slice.decay ? control->adam.decay : 0;
    if (control->applied != 0)
      compute(context,
              AdamUpdate{adam, part(t.w), part(t.g), part(t.m), slice_of(t.v, slice.second(), slice.count),
                         part(t.average), slice_of(t.products, slice.product_offset, slice.count)});
    fill_zero(part(t.g));
  }
}

}  // namespace longstride::cpu
