#include "longstride/ops/update.h"

#include <limits>

namespace longstride {

namespace {

OpWork adam_work(const UpdateTable& table, const UpdateTensors& t) {
  int64_t adam = 0, copied = 0;
  for (const ParameterSlice& slice : table.slices()) {
    adam += slice.count;
    if (slice.product_offset >= 0) copied += slice.count;
  }
  const int64_t per_element = 4 * (4 + 4 + (t.average ? 2 : 0));
  return {.bytes = adam * per_element + (t.products ? copied * size_of(t.products.dtype) : 0)};
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

void check_tensors(const Arguments& arguments, const UpdateTensors& t) {
  arguments.flat("w", t.w, DType::f32, t.w.count());
  arguments.flat("g", t.g, DType::f32, t.w.count());
  arguments.flat("m", t.m, DType::f32, t.m.count());
  arguments.flat("v", t.v, DType::f32, t.v.count());
  if (t.average) arguments.flat("average", t.average, DType::f32, t.m.count());
  if (!t.products) return;
  arguments.product("products", t.products.dtype);
  arguments.flat("products", t.products, t.products.dtype, t.products.count());
}

}  // namespace

int64_t UpdateTable::bytes(Device device, std::span<const ParameterSlice> slices,
                           std::span<const MuonMatrix> matrices) {
  int64_t bytes = 0, chunks = 0;
  dispatch(OpContext{device}, LayOutUpdate{slices, matrices, nullptr, &bytes, &chunks});
  return bytes;
}

int64_t UpdateTable::count_chunks(Device device, std::span<const ParameterSlice> slices,
                                  std::span<const MuonMatrix> matrices) {
  int64_t bytes = 0, chunks = 0;
  dispatch(OpContext{device}, LayOutUpdate{slices, matrices, nullptr, &bytes, &chunks});
  return chunks;
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
  int64_t bytes = 0;
  dispatch(OpContext{device}, LayOutUpdate{slices_, matrices_, buffer_.data(), &bytes, &chunks_});
}

UpdateTable UpdateTable::to_measure(std::span<const MuonMatrix> matrices, DType orthogonal) {
  UpdateTable table;
  table.matrices_ = in_working_order(matrices);
  table.orthogonal_ = orthogonal;
  return table;
}

OpWork AddLosses::work() const { return {.bytes = losses.bytes()}; }

void AddLosses::check(const Arguments& arguments) const {
  arguments.flat("losses", losses, DType::f32, losses.count());
}

OpWork GradientSquares::work() const {
  return SquaresOfChunks{table, g, 0, std::numeric_limits<int64_t>::max(), nullptr}.work();
}

void GradientSquares::check(const Arguments& arguments) const {
  arguments.flat("g", g, DType::f32, g.count());
}

OpWork SquaresOfChunks::work() const {
  int64_t count = 0;
  const auto add = [&](int64_t offset, int64_t of_parameter) {
    if (offset >= begin && offset < end) count += of_parameter;
  };
  for (const ParameterSlice& slice : table.slices()) add(slice.offset, slice.count);
  for (const MuonMatrix& matrix : table.matrices()) add(matrix.offset, matrix.count());
  return {.bytes = count * size_of(DType::f32)};
}

void SquaresOfChunks::check(const Arguments& arguments) const {
  arguments.flat("g", g, DType::f32, g.count());
}

OpWork ApplyAdam::work() const { return adam_work(table, tensors); }

void ApplyAdam::check(const Arguments& arguments) const { check_tensors(arguments, tensors); }

OpWork ApplyMuon::work() const { return muon_work(table, tensors); }

void ApplyMuon::check(const Arguments& arguments) const { check_tensors(arguments, tensors); }

void update_parameters(const OpContext& context, const UpdateTable& table, const UpdateTensors& tensors,
                       UpdateControl* control) {
  run(context, GradientSquares{table, tensors.g, control});
  run(context, DecideUpdate{table, control});
  run(context, ApplyAdam{table, tensors, control});
  if (!table.matrices().empty()) run(context, ApplyMuon{table, tensors, control});
}

int64_t update_scratch_bytes(Device device, std::span<const MuonMatrix> matrices, DType orthogonal) {
  if (matrices.empty()) return 0;
  const UpdateTable table = UpdateTable::to_measure(matrices, orthogonal);
  return scratch_bytes(device, ApplyMuon{table, {}, nullptr});
}

}  // namespace longstride
