// The update of all parameters (contract: longstride/ops/update.h), slice by slice. The same bits for any
// number of threads. No scratch.
#include "longstride/ops/update.h"

#include <algorithm>
#include <cmath>

#include "longstride/ops/cpu/ops.h"

namespace longstride::cpu {

namespace {

Tensor slice_of(const Tensor& flat, int64_t offset, int64_t count) {
  if (!flat || offset < 0) return {};
  return Tensor(static_cast<char*>(flat.data) + offset * size_of(flat.dtype), flat.dtype, {count},
                flat.device);
}

}  // namespace

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
  control->norm = std::sqrt(squares) / control->loss_scale;
  control->applied = std::isfinite(control->norm) && std::isfinite(control->losses);
  AdamStep adam = control->adam;
  adam.gradient_scale = (control->clip > 0 ? std::min(1.0, control->clip / (control->norm + 1e-12)) : 1.0) /
                        control->loss_scale;
  for (const ParameterSlice& slice : table.slices()) {
    const auto part = [&](const Tensor& flat) { return slice_of(flat, slice.offset, slice.count); };
    adam.decay = slice.decay ? control->adam.decay : 0;
    if (control->applied != 0)
      cpu::adam_step(context, adam, part(t.w), part(t.g), part(t.m), part(t.v), part(t.average),
                     slice_of(t.products, slice.product_offset, slice.count));
    fill_zero(part(t.g));
  }
}

}  // namespace longstride::cpu
