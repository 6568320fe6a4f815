#include "longstride/ops/muon.h"

#include <array>

#include "longstride/ops/cpu/bf16_products.h"

namespace longstride {

namespace {

constexpr NewtonSchulzStep kOfJordan{3.4445, -4.7750, 2.0315};
constexpr std::array<NewtonSchulzStep, 5> kJordan{kOfJordan, kOfJordan, kOfJordan, kOfJordan, kOfJordan};

// The polynomial of a value times `factor`.
constexpr NewtonSchulzStep stretched(double factor, const NewtonSchulzStep& p) {
  const double square = factor * factor;
  return {p.a * factor, p.b * factor * square, p.c * factor * square * square};
}

// Amsel and others, 2025 (arXiv 2505.16932), whose sequence makes the most of values from 0.001 to 1 when as
// many steps are taken as it needs: the first four end in 0.42 to 1.56. The second to fifth alone make the
// most of values from 0.004 to 1, once these are stretched to the interval that the second is made for, which
// ends at 1.9917. Of the fours that were tried these come nearest to 1 in the log-uniform mean over
// [0.001, 1] (docs/training.md).
// Each step but the last, and the norm of the start, leave a hundredth for rounding, as published: beyond
// their interval the polynomials grow without bound.
constexpr double kRoom = 1 / 1.01, kSecondEnds = 1.9917;
constexpr std::array<NewtonSchulzStep, 4> kPolar{
    stretched(kSecondEnds * kRoom * kRoom, {4.107059111542203, -2.9478499167379106, 0.5448431082926601}),
    stretched(kRoom, {3.9486908534822946, -2.908902115951949, 0.5518191394370137}),
    stretched(kRoom, {3.3184196573706015, -2.488488024314874, 0.51004894012372}),
    NewtonSchulzStep{2.300652019954817, -1.6689039845747493, 0.4188073119525673}};

}  // namespace

NewtonSchulz parse_newton_schulz(std::string_view name) {
  if (name == "jordan") return NewtonSchulz::jordan;
  LONGSTRIDE_CHECK(name == "polar", "unknown steps of Muon: {}; known: polar, jordan", name);
  return NewtonSchulz::polar;
}

std::span<const NewtonSchulzStep> steps_of(NewtonSchulz kind) {
  if (kind == NewtonSchulz::jordan) return kJordan;
  return kPolar;
}

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
  return cpu::multiplies_bf16() ? DType::bf16 : DType::f32;
}

double newton_schulz_flops(NewtonSchulz kind, int64_t rows, int64_t columns) {
  const double shorter = static_cast<double>(std::min(rows, columns));
  const double longer = static_cast<double>(std::max(rows, columns));
  return static_cast<double>(steps_of(kind).size()) * 2 * shorter * shorter * (2 * longer + shorter);
}

OpWork Orthogonalize::work() const {
  const double flops =
      x.rank == 3 ? static_cast<double>(x.shape[0]) * newton_schulz_flops(kind, x.shape[1], x.shape[2]) : 0;
  return {.bytes = 2 * x.bytes(), .flops = flops};
}

void Orthogonalize::check(const Arguments& arguments) const {
  arguments.product("x", x.dtype);
  LONGSTRIDE_CHECK(x.rank == 3, "newton_schulz: x is {}, must be (count, rows, columns)", x.describe());
  arguments.flat("x", x, x.dtype, x.count());
  LONGSTRIDE_CHECK(on_gpu(arguments.device()) || x.dtype == DType::f32 || cpu::multiplies_bf16(),
                   "newton_schulz: x is {}, must be f32 on a CPU without products of bf16", x.describe());
}

}  // namespace longstride
