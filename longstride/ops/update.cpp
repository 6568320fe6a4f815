// The update of all parameters: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/update.h"

#include "longstride/ops/on_device.h"
#include "longstride/ops/profile.h"

namespace longstride {

namespace {

void check_flat(const char* name, const Tensor& t, const Tensor& like) {
  LONGSTRIDE_CHECK(
      t && t.dtype == like.dtype && t.count() == like.count() && t.contiguous() && t.device == like.device,
      "update_parameters: {} is {}, must be {} and contiguous", name, t.describe(), like.describe());
}

}  // namespace

int64_t UpdateTable::bytes(Device device, std::span<const ParameterSlice> slices) {
  int64_t chunks = 0;
  return on_gpu(device) ? cuda::update_table_bytes(slices, &chunks) : 0;
}

UpdateTable::UpdateTable(Device device, std::span<const ParameterSlice> slices)
    : slices_(slices.begin(), slices.end()), buffer_(device, bytes(device, slices)) {
  if (!on_gpu(device)) return;
  cuda::update_table_bytes(slices, &chunks_);
  cuda::fill_update_table(slices, buffer_.data());
}

void add_losses(const OpContext& context, const Tensor& losses, UpdateControl* control) {
  const OpTimer timer("add_losses", {.bytes = losses.bytes()});
  check_device("add_losses", context.device);
  LONGSTRIDE_CHECK(losses.dtype == DType::f32 && losses.contiguous() && losses.device == context.device.kind,
                   "add_losses: losses are {}, must be f32, contiguous and on {}", losses.describe(),
                   name_of(context.device));
  if (on_gpu(context.device)) return cuda::add_losses(context, losses, control);
  cpu::add_losses(context, losses, control);
}

void update_parameters(const OpContext& context, const UpdateTable& table, const UpdateTensors& t,
                       UpdateControl* control) {
  const OpTimer timer("update_parameters",
                      {.bytes = 2 * (t.w.bytes() + t.m.bytes() + t.v.bytes() + t.average.bytes()) +
                                3 * t.g.bytes() + t.products.bytes()});
  check_device("update_parameters", context.device);
  LONGSTRIDE_CHECK(t.w && t.w.dtype == DType::f32 && t.w.contiguous() && t.w.device == context.device.kind,
                   "update_parameters: w is {}, must be f32, contiguous and on {}", t.w.describe(),
                   name_of(context.device));
  check_flat("g", t.g, t.w);
  check_flat("m", t.m, t.w);
  check_flat("v", t.v, t.w);
  if (t.average) check_flat("average", t.average, t.w);
  if (t.products)
    LONGSTRIDE_CHECK(is_product_dtype(context.device, t.products.dtype) && t.products.contiguous() &&
                         t.products.device == context.device.kind,
                     "update_parameters: products are {}, must be {}, contiguous and on {}",
                     t.products.describe(), product_dtypes(context.device), name_of(context.device));
  if (on_gpu(context.device)) return cuda::update_parameters(context, table, t, control);
  cpu::update_parameters(context, table, t, control);
}

}  // namespace longstride
