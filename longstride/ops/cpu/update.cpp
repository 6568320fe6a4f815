// The update of all parameters (contract: longstride/ops/update.h), slice by slice. The same bits for any
// number of threads. No scratch.
#include "longstride/ops/update.h"

#include <cmath>

#include "longstride/ops/cpu/ops.h"
#include "longstride/ops/cpu/slices.h"

namespace longstride::cpu {

void add_losses(const OpContext&, const Tensor& losses, UpdateControl* control) {
  const float* values = losses.as<float>();
  double sum = control->losses;
  for (int64_t i = 0; i < losses.count(); ++i) sum += values[i];
  control->losses = sum;
}

void update_parameters(const OpContext& context, const UpdateTable& table, const UpdateTensors& t,
                       UpdateControl* control) {
  double squares = 0;
  for (const ParameterSlice& slice : table.slices())
    squares += cpu::sum_of_squares(context, slice_of(t.g, slice.offset, slice.count));
  for (const MuonMatrix& matrix : table.matrices())
    squares += cpu::sum_of_squares(context, slice_of(t.g, matrix.offset, matrix.count()));
  control->norm = std::sqrt(squares) / control->loss_scale;
  control->applied = std::isfinite(control->norm) && std::isfinite(control->losses);
  AdamStep adam = control->adam;
  adam.gradient_scale = gradient_scale(*control);
  for (const ParameterSlice& slice : table.slices()) {
    const auto part = [&](const Tensor& flat) { return slice_of(flat, slice.offset, slice.count); };
    adam.decay = slice.decay ? control->adam.decay : 0;
    if (control->applied != 0)
      cpu::adam_step(context, adam, part(t.w), part(t.g), part(t.m),
                     slice_of(t.v, slice.second(), slice.count), part(t.average),
                     slice_of(t.products, slice.product_offset, slice.count));
    fill_zero(part(t.g));
  }
}

}  // namespace longstride::cpu
