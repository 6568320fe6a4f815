// Dropout of eight neighbouring elements, which dropout and the fused residual ops share. Roundings are
// spelled out, so that all of them give the same bits.
#pragma once

#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/dropout.h"

namespace longstride::cuda {

// A Dropout as kernels take it: what needs double is computed on the CPU.
struct DropoutMask {
  Dropout dropout;
  uint32_t threshold;
  float scale;

  explicit DropoutMask(const Dropout& from)
      : dropout(from), threshold(from.threshold()), scale(from.scale()) {}
};

// Bit j: whether element 8 block + j is kept.
__device__ inline uint32_t kept_of_block(const RandomStream& numbers, uint32_t threshold, uint64_t block) {
  const PhiloxBlock words = numbers.block(block);
  uint32_t kept = 0;
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    kept |= static_cast<uint32_t>((words[word] & 0xffffu) >= threshold) << (2 * word);
    kept |= static_cast<uint32_t>((words[word] >> 16) >= threshold) << (2 * word + 1);
  }
  return kept;
}

// Bit j: whether element i + j is kept. One Philox block, two where it does not begin with one.
__device__ inline uint32_t kept8(const DropoutMask& mask, int64_t i) {
  if (mask.threshold == 0) return 0xffu;
  const RandomStream numbers = mask.dropout.numbers();
  const uint64_t first = static_cast<uint64_t>(mask.dropout.first + i), block = first / 8;
  const uint32_t skipped = static_cast<uint32_t>(first) % 8;
  uint32_t kept = kept_of_block(numbers, mask.threshold, block);
  if (skipped != 0) kept = (kept | kept_of_block(numbers, mask.threshold, block + 1) << 8) >> skipped;
  return kept;
}

// x + drop(branch)
__device__ inline Eight add_kept(const Eight& x, const Eight& branch, uint32_t kept, float scale) {
  Eight y;
#pragma unroll
  for (int j = 0; j < 8; ++j) y.v[j] = kept >> j & 1 ? __fmaf_rn(branch.v[j], scale, x.v[j]) : x.v[j];
  return y;
}

// drop'(dy)
__device__ inline Eight keep_gradient(const Eight& dy, uint32_t kept, float scale) {
  Eight dbranch;
#pragma unroll
  for (int j = 0; j < 8; ++j) dbranch.v[j] = kept >> j & 1 ? __fmul_rn(dy.v[j], scale) : 0.0f;
  return dbranch;
}

}  // namespace longstride::cuda
