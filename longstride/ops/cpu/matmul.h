// Products of matrices through oneDNN; nothing else here multiplies with that library.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/base/dtype.h"

namespace longstride::cpu {

// c (m, n) = a (m, k) b (k, n) [+ bias (n) f32, to every row] [+ c], accumulated in f32. A transposed matrix
// is one whose column stride is not 1; one of the two strides of a and of b is 1, that of a column of
// c is. Strides in elements.
struct MatmulShape {
  DType dtype = DType::f32;    // of a and b: f32 or bf16
  DType c_dtype = DType::f32;  // f32, or bf16 if a and b are
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row = 0, a_column = 1;
  int64_t b_row = 0, b_column = 1;
  int64_t c_row = 0;
  bool bias = false;
  bool accumulate = false;
  auto operator<=>(const MatmulShape&) const = default;
};

// On all threads. The first product of a shape in a thread prepares it (milliseconds) and later ones find it;
// nothing is allocated then. The same bits for any number of threads. Signals wait until it is done.
void matmul(const MatmulShape& shape, const void* a, const void* b, const float* bias, void* c);

// The code that the library chooses for matrices of this type on this machine, as in "brg:avx512_core"; empty
// if it cannot multiply them (limit_instructions() or ONEDNN_MAX_CPU_ISA may forbid it).
std::string matmul_kernel(DType dtype);

}  // namespace longstride::cpu
