// One attention with its tensors, as a model of 8 heads of width 64 calls it.
#pragma once

#include <string>

#include "longstride/ops/attention.h"

namespace longstride {

// q, k, v are columns of one array, as are their gradients, and o and its gradient are whole ones.
class AttentionProblem {
 public:
  static constexpr int64_t kHeads = 8, kWidth = 64;

  // Inputs are random, or zero and then take no memory until they are used.
  enum class Values { random, zero };
  AttentionProblem(int64_t n, DType dtype, Values values = Values::random);

  int64_t n;
  AttentionTensors tensors;
  AttentionGradients gradients;

  // Of the tensors that the forward reads and writes, and the backward: all there are.
  int64_t forward_bytes() const;
  int64_t backward_bytes() const;
  // A checksum of o and of the gradients.
  std::string results() const;

 private:
  Buffer qkv_, d_qkv_, o_, d_o_, lse_;
};

// A pattern made ready for the present number of threads.
class PlannedAttention {
 public:
  PlannedAttention(const std::string& pattern, int64_t n);

  void forward(const AttentionProblem& problem) const;
  void backward(const AttentionProblem& problem) const;

  int64_t pairs() const { return plan_.pairs; }
  // Useful arithmetic: pairs that are not allowed count nothing.
  double forward_flops() const { return 4.0 * AttentionProblem::kWidth * static_cast<double>(pairs()); }
  double backward_flops() const { return 10.0 * AttentionProblem::kWidth * static_cast<double>(pairs()); }

 private:
  AttentionPlan plan_;
  mutable Arena scratch_;
};

// Throws Error if a short sequence's results are not the reference's in double precision.
void check_attention(const std::string& pattern, DType dtype);

}  // namespace longstride
