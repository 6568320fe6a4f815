// Muon (Jordan, 2024, https://kellerjordan.github.io/posts/muon): momentum whose direction is made
// orthogonal, for the matrices inside a model.
//   g' = gradient_scale * g;  m = m + (1 - momentum) (g' - m);  u = g' + momentum (m - g')
//   X = newton_schulz(u / (||u|| + 1e-7)), with ||u|| the root of the sum of squares
//   w = w - rate * (sqrt(max(1, rows / columns)) * X + decay * w);  e = ema * e + (1 - ema) * w
// Newton-Schulz is a few times X = a X + (b A + c A^2) X with A = X X^T, or from the right with A = X^T X
// where that is smaller: an odd polynomial of each singular value. It moves them near 1 and leaves the
// directions alone.
//
// f32 but for X, A and what lies between them: see newton_schulz_dtype(). Products sum in f32, squares in
// double.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>
#include <vector>

#include "longstride/ops/run.h"

namespace longstride {

// What a step is told.
struct MuonStep {
  double rate = 0.02;
  double momentum = 0.95;
  double decay = 0;
};

// A matrix in flat buffers, in elements; its rows follow one another. Its copy in the products' dtype may lie
// elsewhere, and so may its momentum and its average.
struct MuonMatrix {
  int64_t offset = 0, rows = 0, columns = 0;
  int64_t product_offset = -1;  // -1: none
  int64_t kept_offset = -1;     // of momentum and average; -1: `offset`
  int64_t count() const { return rows * columns; }
  int64_t kept() const { return kept_offset < 0 ? offset : kept_offset; }
};

struct NewtonSchulzStep {
  double a, b, c;
};

enum class NewtonSchulz : uint8_t {
  jordan,  // five steps of one polynomial (Jordan, 2024): values from 0.0016 to 1 end in 0.68 to 1.21
  polar,   // four steps, each of its own (Polar Express): values from 0.0044 to 1 end in 0.87 to 1.13
};

// Throws Error for any name but "jordan" and "polar".
NewtonSchulz parse_newton_schulz(std::string_view name);

// The steps' polynomials, in their order.
std::span<const NewtonSchulzStep> steps_of(NewtonSchulz kind);

inline constexpr double kMuonEpsilon = 1e-7;

inline double muon_scale(int64_t rows, int64_t columns) {
  return std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
}

// The same matrices, larger ones first and those of one shape side by side, as they are worked on.
std::vector<MuonMatrix> in_working_order(std::span<const MuonMatrix> matrices);

// What X is held and multiplied in where a model's products are in `product`: f32 for f32. Else 16 bits: on a
// GPU f16, whose eleven bits of precision cost nothing over the eight of bf16, since no number here is large;
// on a CPU bf16 where it multiplies that in hardware and f32 where it does not.
DType newton_schulz_dtype(Device device, DType product);

// x = newton_schulz(x), each of the matrices (count, rows, columns), contiguous, of norm 1 at most; f32,
// bf16 or, on a GPU, f16. On a CPU bf16 needs its hardware. Deterministic, on a CPU for any number of
// threads.
struct Orthogonalize {
  NewtonSchulz kind;
  Tensor x;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "newton_schulz"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// FLOPs of its products by their definition.
double newton_schulz_flops(NewtonSchulz kind, int64_t rows, int64_t columns);

}  // namespace longstride
