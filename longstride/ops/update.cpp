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

int64_t UpdateTable::bytes(Device device, std::span<const ParameterSlice> slices,
                           std::span<const MuonMatrix> matrices) {
  int64_t chunks = 0;
  return on_gpu(device) ? cuda::update_table_bytes(slices, matrices, &chunks) : 0;
}

UpdateTable::UpdateTable(Device device, std::span<const ParameterSlice> slices,
                         std::span<const MuonMatrix> matrices, DType orthogonal, NewtonSchulz kind)
    : slices_(slices.begin(), slices.end()),
      matrices_(in_working_order(matrices)),
      orthogonal_(orthogonal),
      kind_(kind),
      buffer_(device, bytes(device, slices, matrices)) {
  for (const MuonMatrix& matrix : matrices)
    LONGSTRIDE_CHECK(matrix.rows >= 1 && matrix.columns >= 1,
                     "update_parameters: a matrix has {} rows and {} columns, must have some", matrix.rows,
                     matrix.columns);
  if (!on_gpu(device)) return;
  cuda::update_table_bytes(slices_, matrices_, &chunks_);
  cuda::fill_update_table(slices_, matrices_, buffer_.data());
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

namespace {

// Each operand of both kinds of step once: the gradients are also read for their norm.
OpWork adam_work(const UpdateTable& table, const UpdateTensors& t) {
  int64_t adam = 0, copied = 0, muon = 0;
  for (const ParameterSlice& slice : table.slices()) {
    adam += slice.count;
    if (slice.product_offset >= 0) copied += slice.count;
  }
  for (const MuonMatrix& matrix : table.matrices()) muon += matrix.count();
  const int64_t per_element = 4 * (6 + 3 + (t.average ? 2 : 0));
  return {.bytes = adam * per_element + 4 * muon + (t.products ? copied * size_of(t.products.dtype) : 0)};
}

OpWork muon_work(const UpdateTable& table, const UpdateTensors& t) {
  OpWork work;
  for (const MuonMatrix& matrix : table.matrices()) {
    work.flops += newton_schulz_flops(table.kind(), matrix.rows, matrix.columns);
    work.bytes +=
        matrix.count() * (4 * (4 + 2 + (t.average ? 2 : 0)) +
                          (t.products && matrix.product_offset >= 0 ? size_of(t.products.dtype) : 0));
  }
  return work;
}

void check_tensors(Device device, const UpdateTensors& t) {
  LONGSTRIDE_CHECK(t.w && t.w.dtype == DType::f32 && t.w.contiguous() && t.w.device == device.kind,
                   "update_parameters: w is {}, must be f32, contiguous and on {}", t.w.describe(),
                   name_of(device));
  check_flat("g", t.g, t.w);
  check_flat("m", t.m, t.w);
  LONGSTRIDE_CHECK(t.v.dtype == DType::f32 && t.v.contiguous() && t.v.device == device.kind,
                   "update_parameters: v is {}, must be f32, contiguous and on {}", t.v.describe(),
                   name_of(device));
  if (t.average) check_flat("average", t.average, t.w);
  if (t.products)
    LONGSTRIDE_CHECK(is_product_dtype(device, t.products.dtype) && t.products.contiguous() &&
                         t.products.device == device.kind,
                     "update_parameters: products are {}, must be {}, contiguous and on {}",
                     t.products.describe(), product_dtypes(device), name_of(device));
}

}  // namespace

void update_parameters(const OpContext& context, const UpdateTable& table, const UpdateTensors& t,
                       UpdateControl* control) {
  {
    const OpTimer timer("update_parameters", adam_work(table, t));
    check_device("update_parameters", context.device);
    check_tensors(context.device, t);
    if (on_gpu(context.device))
      cuda::update_parameters(context, table, t, control);
    else
      cpu::update_parameters(context, table, t, control);
  }
  if (table.matrices().empty()) return;
  const OpTimer timer("muon", muon_work(table, t));
  const int64_t scratch = muon_scratch_bytes(context.device, table.matrices(), table.orthogonal());
  LONGSTRIDE_CHECK(scratch == 0 || context.scratch != nullptr,
                   "muon: needs {} bytes of scratch, the context has none", scratch);
  if (on_gpu(context.device)) return cuda::muon_update(context, table, t, control);
  cpu::muon_update(context, table, t, control);
}

}  // namespace longstride
