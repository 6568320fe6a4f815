// Muon: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/muon.h"

#include "longstride/ops/arguments.h"
#include "longstride/ops/cpu/ops.h"
#include "longstride/ops/profile.h"

namespace longstride {

std::vector<MuonMatrix> in_working_order(std::span<const MuonMatrix> matrices) {
  std::vector<MuonMatrix> sorted(matrices.begin(), matrices.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const MuonMatrix& a, const MuonMatrix& b) {
    return a.count() != b.count() ? a.count() > b.count() : a.rows > b.rows;
  });
  return sorted;
}

DType newton_schulz_dtype(Device device, DType product) {
  if (product == DType::f32) return DType::f32;
  if (on_gpu(device)) return DType::f16;
  return cpu::linear_has_bf16() ? DType::bf16 : DType::f32;
}

double newton_schulz_flops(int64_t rows, int64_t columns) {
  const double shorter = static_cast<double>(std::min(rows, columns));
  const double longer = static_cast<double>(std::max(rows, columns));
  return static_cast<double>(kNewtonSchulz.size()) * 2 * shorter * shorter * (2 * longer + shorter);
}

int64_t newton_schulz_scratch_bytes(Device device, int64_t count, int64_t rows, int64_t columns,
                                    DType dtype) {
  check_device("newton_schulz", device);
  return on_gpu(device) ? cuda::newton_schulz_scratch_bytes(count, rows, columns, dtype)
                        : cpu::newton_schulz_scratch_bytes(count, rows, columns, dtype);
}

void newton_schulz(const OpContext& context, const Tensor& x) {
  const OpTimer timer("newton_schulz", {.bytes = 2 * x.bytes(),
                                        .flops = x.rank == 3 ? static_cast<double>(x.shape[0]) *
                                                                   newton_schulz_flops(x.shape[1], x.shape[2])
                                                             : 0});
  const Arguments arguments("newton_schulz", context.device);
  arguments.product("x", x.dtype);
  LONGSTRIDE_CHECK(x.rank == 3, "newton_schulz: x is {}, must be (count, rows, columns)", x.describe());
  arguments.flat("x", x, x.dtype, x.count());
  LONGSTRIDE_CHECK(on_gpu(context.device) || x.dtype == DType::f32 || cpu::linear_has_bf16(),
                   "newton_schulz: x is {}, must be f32 on a CPU without products of bf16", x.describe());
  if (x.count() == 0) return;
  arguments.scratch(context,
                    newton_schulz_scratch_bytes(context.device, x.shape[0], x.shape[1], x.shape[2], x.dtype));
  if (on_gpu(context.device)) return cuda::newton_schulz(context, x);
  cpu::newton_schulz(context, x);
}

int64_t muon_scratch_bytes(Device device, std::span<const MuonMatrix> matrices, DType dtype) {
  if (matrices.empty()) return 0;
  check_device("muon", device);
  return on_gpu(device) ? cuda::muon_scratch_bytes(matrices, dtype)
                        : cpu::muon_scratch_bytes(matrices, dtype);
}

}  // namespace longstride
