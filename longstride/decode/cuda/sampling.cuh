// Drawing a byte from a sequence's logits by one block, a thread a byte, as decode/sampler.h defines it:
// weights in double, cuts by rank, one uniform number.
#pragma once

#include "longstride/base/rng.h"
#include "longstride/decode/cuda/args.h"
#include "longstride/ops/cuda/common.cuh"

namespace longstride::cuda::decode {

static_assert(kThreads == kVocabulary, "a thread a byte");

struct SamplingRoom {
  float logit[kVocabulary];
  double sorted[kVocabulary];
  double of_warp[kWarps];
  float highest[kWarps];
  int chosen[kWarps];
};

// The sum of `value` over the threads up to this one; `total`: over all. In one order of additions.
__device__ inline double sum_up_to(double value, SamplingRoom& room, double& total) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, value, offset);
    if (lane >= offset) value += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) room.of_warp[warp] = value;
  __syncthreads();
  double before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += room.of_warp[w];
  }
  return before + value;
}

// The lowest thread for which `wanted`, or kVocabulary, in every thread.
__device__ inline int lowest(bool wanted, SamplingRoom& room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const uint32_t votes = __ballot_sync(0xffffffffu, wanted);
  __syncthreads();
  if (threadIdx.x % kWarp == 0)
    room.chosen[warp] = votes != 0 ? warp * kWarp + __ffs(votes) - 1 : kVocabulary;
  __syncthreads();
  int least = kVocabulary;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) least = min(least, room.chosen[w]);
  return least;
}

// The byte, in every thread; -1 if a logit is NaN or +infinity, or all are -infinity.
__device__ inline int draw(const float* logits, const Sequence& s, SamplingRoom& room) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const float logit = __ldcg(logits + thread);
  const bool bad = isnan(logit) || logit == INFINITY;
  float highest = warp_max(bad ? -INFINITY : logit);
  __syncthreads();
  room.logit[thread] = logit;
  if (thread % kWarp == 0) room.highest[warp] = highest;
  if (__syncthreads_or(bad)) return -1;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, room.highest[w]);
  if (highest == -INFINITY) return -1;
  const SamplerConfig& sampler = s.draw.sampler;
  if (sampler.temperature == 0) return lowest(logit == highest, room);

  double weight = exp((static_cast<double>(logit) - highest) / sampler.temperature), total;
  const bool cut_k = sampler.top_k > 0 && sampler.top_k < kVocabulary;
  if (cut_k || sampler.top_p < 1) {
    int rank = 0;  // of equally likely bytes the lower comes first
    for (int other = 0; other < kVocabulary; ++other)
      rank += room.logit[other] > logit || (room.logit[other] == logit && other < thread);
    const int kept = cut_k ? static_cast<int>(sampler.top_k) : kVocabulary;
    bool keep = rank < kept;
    if (sampler.top_p < 1) {
      room.sorted[rank] = keep ? weight : 0.0;
      __syncthreads();
      const double own = room.sorted[thread], before = sum_up_to(own, room, total) - own;
      __syncthreads();
      room.sorted[thread] = before;
      __syncthreads();
      keep = keep && (rank == 0 || room.sorted[rank] < sampler.top_p * total);
    }
    if (!keep) weight = 0;
  }
  const double upto = sum_up_to(weight, room, total);
  const double u = RandomStream{sampler.seed, random_stream::kSample, s.draw.stream}.uniform(
      static_cast<uint64_t>(s.draw.origin + s.position));
  const int byte = lowest(weight > 0 && u * total < upto, room);
  if (byte < kVocabulary) return byte;
  // The sum may end a rounding error low: a draw beyond it is the last byte that can occur.
  room.sorted[thread] = weight;
  __syncthreads();
  return kVocabulary - 1 - lowest(room.sorted[kVocabulary - 1 - thread] > 0, room);
}

}  // namespace longstride::cuda::decode
