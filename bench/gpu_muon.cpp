#include "bench/gpu_muon.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "longstride/device/backend.h"
#include "longstride/ops/adam.h"
#include "longstride/ops/muon.h"
#include "longstride/ops/update.h"

#include "bench/gpu_rates.h"
#include "bench/measure.h"

namespace longstride {

namespace {

using Json = nlohmann::json;

constexpr Device kGpu{DeviceKind::cuda, 0};
constexpr NewtonSchulz kKind = NewtonSchulz::polar;

struct Matrices {
  int64_t count, rows, columns;
  int64_t elements() const { return count * rows * columns; }
  double flops() const { return static_cast<double>(count) * newton_schulz_flops(kKind, rows, columns); }
};
// Of 30 layers of width 512: queries, keys, values and what becomes of them; both sides of the MLP.
constexpr Matrices kModel[] = {{120, 512, 512}, {30, 2048, 512}, {30, 512, 2048}};
// Of 240 layers of width 96, and of 30 of width 256.
constexpr Matrices kNarrow[] = {{960, 96, 96}, {240, 96, 320}, {120, 256, 256}, {30, 1024, 256}};

// Uniform in [-scale, scale), the same 2^20 values again and again.
void fill(const Tensor& t, float scale) {
  constexpr int64_t kPeriod = int64_t{1} << 20;
  const Buffer values({}, 4 * kPeriod), there(kGpu, 4 * kPeriod);
  const Tensor on_cpu(values.data(), DType::f32, {kPeriod});
  fill_uniform(on_cpu, 1);
  for (int64_t i = 0; i < kPeriod; ++i) static_cast<float*>(on_cpu.data)[i] *= scale;
  backend(kGpu).copy(there.data(), values.data(), 4 * kPeriod);
  for (int64_t from = 0; from < t.count(); from += kPeriod) {
    const int64_t count = std::min(kPeriod, t.count() - from);
    char* const to = static_cast<char*>(t.data) + from * size_of(t.dtype);
    run({kGpu},
        Convert{Tensor(there.data(), DType::f32, {count}, t.device), Tensor(to, t.dtype, {count}, t.device)});
  }
}

Json report(const std::string& name, double seconds, double flops) {
  fmt::print("{:<24}{:>9.3f}{:>10.0f}\n", name, 1e3 * seconds, flops / seconds * 1e-12);
  return {{"name", name}, {"ms", 1e3 * seconds}, {"tflops", flops / seconds * 1e-12}};
}

Json time_newton_schulz(const Matrices& m) {
  const DType dtype = newton_schulz_dtype(kGpu, DType::bf16);
  const Buffer data(kGpu, m.elements() * size_of(dtype));
  const Orthogonalize call{kKind, Tensor(data.data(), dtype, {m.count, m.rows, m.columns}, kGpu.kind)};
  fill(call.x, 1 / std::sqrt(static_cast<float>(m.rows * m.columns)));  // of norms below 1
  Arena scratch(kGpu, scratch_bytes(kGpu, call));
  const double seconds = median_gpu_seconds([&] { run({kGpu, &scratch}, call); });
  return report(fmt::format("{} of ({}, {})", m.count, m.rows, m.columns), seconds, m.flops());
}

Json time_update() {
  std::vector<MuonMatrix> matrices;
  int64_t elements = 0;
  double flops = 0;
  for (const Matrices& m : kModel) {
    flops += m.flops();
    for (int64_t i = 0; i < m.count; ++i, elements += m.rows * m.columns)
      matrices.push_back({elements, m.rows, m.columns, elements});
  }
  const DType product = DType::bf16;
  const UpdateTable table(kGpu, {}, matrices, newton_schulz_dtype(kGpu, product), kKind);
  std::vector<Buffer> buffers;
  const auto tensor = [&](DType dtype) {
    buffers.emplace_back(kGpu, elements * size_of(dtype));
    const Tensor t(buffers.back().data(), dtype, {elements}, kGpu.kind);
    fill(t, 1);
    return t;
  };
  const auto of_floats = [&] { return tensor(DType::f32); };
  UpdateTensors t;
  t.w = of_floats(), t.g = of_floats(), t.m = of_floats(), t.average = of_floats(),
  t.products = tensor(product);
  t.v = Tensor(nullptr, DType::f32, {0}, kGpu.kind);  // Adam moves nothing
  const Buffer control(kGpu, sizeof(UpdateControl));
  UpdateControl told;
  told.adam.step = 1, told.adam.ema = 0.999;
  backend(kGpu).copy(control.data(), &told, sizeof(told));
  auto* const there = static_cast<UpdateControl*>(control.data());
  Arena scratch(kGpu, update_scratch_bytes(kGpu, table.matrices(), table.orthogonal()));
  const OpContext context{kGpu, &scratch};
  update_parameters(context, table, t, there);  // decides
  const double seconds = median_gpu_seconds([&] { run(context, ApplyMuon{table, t, there}); });
  return report("update of all", seconds, flops);
}

}  // namespace

Json time_muon() {
  fmt::print("\nmuon, in f16 by the four steps of Polar Express; TFLOP/s by definition\n");
  fmt::print("{:<24}{:>9}{:>10}\n", "matrices", "ms", "TFLOP/s");
  Json rows;
  for (const Matrices& m : kModel) rows.push_back(time_newton_schulz(m));
  for (const Matrices& m : kNarrow) rows.push_back(time_newton_schulz(m));
  rows.push_back(time_update());
  return rows;
}

}  // namespace longstride
