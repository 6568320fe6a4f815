// Linear layer with a weight in eight bits, for sampling: half the bytes of bf16 to read.
//
// A row of the weight is whole numbers times one scale: w[n][k] = scales[n] * values[n][k]. The numbers are
// symmetric around 0 and the scale is that of a row, so a product needs only one factor for each output.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

struct QuantizedMatrix {
  Tensor values;  // (N, K) i8, in [-127, 127]
  Tensor scales;  // (N) f32
};

// q = w (N, K) f32. Each element is rounded to the nearest multiple of its row's scale, which is the row's
// largest magnitude over 127 (0 for a row of zeros). If an element is not finite, throws Error on the CPU. A
// GPU's memory is not read first; there the row is useless.
struct Quantize {
  Tensor w;
  QuantizedMatrix q;

  const char* name() const { return "quantize"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// w (N, K) f32, bf16 or, on a GPU, f16 = the values that q means.
struct Dequantize {
  QuantizedMatrix q;
  Tensor w;

  const char* name() const { return "dequantize"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// y (M, N) f32 = x w^T + b for x (M, K) f32 and a bias (N) f32 or an empty tensor. Products and sums are
// f32; x is not rounded. The columns of x and y may be part of wider rows. Meant for few rows. A row has the
// same bits whatever rows are beside it.
struct QuantizedLinearForward {
  Tensor x;
  QuantizedMatrix w;
  Tensor b, y;

  const char* name() const { return "quantized_linear_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
