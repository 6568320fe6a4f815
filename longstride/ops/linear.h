// Linear layer, y = x w^T + b.
//
// Products accumulate in f32. The dtype of w (in LinearBackwardWeight, `product`) decides what is
// multiplied:
//   f32          x, y and their gradients are f32
//   bf16         each of them is f32 or bf16; f32 is first rounded to bf16 in scratch, and a bf16 result is
//                rounded once, at the end
//   f16 (GPUs)   likewise with f16
// On a GPU the bias may be rounded to the dtype of y before it is added. Rows of x, y and their gradients
// may be part of wider ones (row stride > width).
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// y (M, N) = x w^T + b.
struct LinearForward {
  Tensor x;  // (M, K)
  Tensor w;  // (N, K) f32, bf16 or f16
  Tensor b;  // (N) f32, or empty
  Tensor y;  // (M, N) =

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "linear_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The same for sampling. x and y are f32, and a row of y has the same bits whatever rows are beside it and
// for any number of threads.
struct LinearEachRow {
  Tensor x, w, b, y;

  static constexpr bool kUsesScratch = true;
  static constexpr bool kOnCpuOnly = true;
  const char* name() const { return "linear_each_row"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dx (M, K) = dy w, for dy (M, N).
struct LinearBackwardInput {
  Tensor dy, w, dx;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "linear_backward_input"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// dw (N, K) f32 += dy^T x, and db (N) f32 += column sums of dy. db may be empty. Its sums take dy unrounded,
// in f32.
struct LinearBackwardWeight {
  Tensor dy, x;
  DType product;
  Tensor dw, db;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "linear_backward_weight"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The most bytes of scratch that LinearForward and its two gradients use for x (rows, in), y (rows, out) and
// products in `product`. Each of x, y and their gradients may be in `stored` or `product`.
int64_t linear_scratch_bytes(Device device, int64_t rows, int64_t in, int64_t out, DType product,
                             DType stored = DType::f32);

// The work of the product of `matrix` with one that has `columns` columns; `bytes` are those of all
// operands.
OpWork product_work(const Tensor& matrix, int64_t columns, int64_t bytes);

}  // namespace longstride
