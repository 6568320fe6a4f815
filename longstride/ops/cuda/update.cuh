// What the update of all parameters and its Muon part share: what was decided, and how both are cut.
#pragma once

#include <span>
#include <vector>

#include "longstride/ops/cuda/adam.cuh"
#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/update.h"

namespace longstride::cuda {

// Elements that a block of threads takes at most; a multiple of eight.
inline constexpr int64_t kChunk = 8192;

// Muon's numbers in f32; what is one minus a number near one is rounded from double.
struct MuonNumbers {
  float gradient_scale, momentum, rest;  // rest: 1 - momentum
  float rate, decay, ema_rest;           // decay: rate * decay; ema_rest: 1 - ema
};

// For the passes over the parameters.
struct Decision {
  AdamNumbers adam;
  MuonNumbers muon;
  int applied;
};

// A piece of a matrix, and where the sums of squares of all the matrix's pieces lie.
struct MuonChunk {
  int64_t offset, product_offset, kept_offset;
  int64_t begin;  // in its matrix
  int count;
  int first_sum, sums;
};

// In the GPU's memory. `squares` has room for a number a chunk.
struct MuonTable {
  const Decision* decision;
  double* squares;
  const MuonChunk* chunks;
};

// The pieces in the order of the matrices.
std::vector<MuonChunk> muon_chunks(std::span<const MuonMatrix> matrices);

// The step of the matrices by `kind` in `orthogonal`; zeroes their gradients.
void muon_update(const OpContext& context, std::span<const MuonMatrix> matrices, const MuonTable& table,
                 const UpdateTensors& tensors, DType orthogonal, NewtonSchulz kind);

// The sum over the block, in thread 0; always in the same order.
template <int Threads>
__device__ double block_sum(double value) {
  __shared__ double sums[Threads];
  sums[threadIdx.x] = value;
  for (int half = Threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[0];
}

}  // namespace longstride::cuda
