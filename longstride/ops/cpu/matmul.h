// Products of matrices through oneDNN. No other code multiplies with that library.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/base/dtype.h"

namespace longstride::cpu {

// c (m, n) = a (m, k) b (k, n) [+ bias (n) f32, to every row] [+ c], accumulated in f32. Strides are in
// elements. One of the two strides of a and of b is 1; a matrix whose column stride is not 1 is a transposed
// one. The column stride of c is 1.
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

// Runs on all threads. The first product of a shape in a thread prepares it (milliseconds). Later ones reuse
// it and allocate nothing. The same bits for any number of threads. Signals wait until it is done.
void matmul(const MatmulShape& shape, const void* a, const void* b, const float* bias, void* c);

// The code that the library chooses for matrices of this type on this machine, as in "brg:avx512_core";
// empty if it cannot multiply them (limit_instructions() or ONEDNN_MAX_CPU_ISA may forbid it).
std::string matmul_kernel(DType dtype);

}  // namespace longstride::cpu
