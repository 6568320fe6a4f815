// Newton-Schulz for Hopper: what Muon sees of newton_schulz.cu, which is compiled for sm_90a alone. In a build
// without that target no_hopper.cpp stands in for it.
#pragma once

#include <cstdint>
#include <span>

#include "longstride/base/dtype.h"

namespace longstride::cuda::hopper {

// Matrices (rows, columns) of one shape, each contiguous and `step` elements behind the one before. Squares
// (shorter, shorter) likewise.
struct OrthogonalBatch {
  int64_t count = 0, rows = 0, columns = 0;
  int64_t step = 0, square_step = 0;
  void* x = nullptr;  // in and out
  void *y = nullptr, *gram = nullptr, *factor = nullptr;
};

// Of a step: x = a x + (b A + c A^2) x with A = x x^T, or from the right with A = x^T x where that is smaller.
struct Polynomial {
  double a = 0, b = 0, c = 0;  // c is not 0
};

// Of batches that one call takes.
inline constexpr int kMostBatches = 6;
// Of polynomials, and of ints that a call needs in the GPU's memory.
inline constexpr int kMostPolynomials = 5, kCounters = 3 * kMostPolynomials;

// Whether the kernels take matrices like these: 16 bits an element, and rows of whole 16-byte chunks, the products'
// too.
bool serves_newton_schulz(DType dtype, int64_t rows, int64_t columns);

// x = the polynomials of x, one after the other, for all matrices of all batches; x and y may change places. The
// larger matrices should come first. Pointers and steps are multiples of 16 bytes. Deterministic. There are
// kCounters of `counters`.
void newton_schulz(std::span<const Polynomial> polynomials, DType dtype, std::span<OrthogonalBatch> batches,
                   int* counters);

}  // namespace longstride::cuda::hopper
