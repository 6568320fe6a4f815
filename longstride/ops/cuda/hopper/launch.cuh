// What a multiprocessor of Hopper has to share out among the kernels here: shared memory and registers.
#pragma once

#include "longstride/ops/cuda/hopper/instructions.cuh"

namespace longstride::cuda::hopper {

inline constexpr int kAlignment = 1024;     // of tiles: where the pattern of swapped chunks begins
inline constexpr int kControlBytes = 1024;  // barriers, masks, tasks
inline constexpr int kSharedOfChip = 227 * 1024, kReservedOfBlock = 1024;
inline constexpr int kMostStages = 8;

// Stages of the ring where `blocks` blocks of threads share a multiprocessor.
constexpr int stages_that_fit(int blocks, int resident_bytes, int stage_bytes, int control_bytes) {
  const int room = (kSharedOfChip + kReservedOfBlock) / blocks - kReservedOfBlock - kAlignment -
                   control_bytes - resident_bytes;
  const int stages = room / stage_bytes;
  return stages < kMostStages ? stages : kMostStages;
}

// Registers of a thread that computes, in a block of `tiles` warpgroups that do and one that fetches; and of
// one that fetches: what they leave.
constexpr int launch_registers(int tiles, int blocks) {
  return 65536 / blocks / ((tiles + 1) * kWarpgroup) / 8 * 8;
}
constexpr int consumer_registers(int tiles, int blocks) {
  constexpr int kFewest = 24;
  const int each = (launch_registers(tiles, blocks) * (tiles + 1) - kFewest) / tiles / 8 * 8;
  return each < 240 ? each : 240;
}
constexpr int producer_registers(int tiles, int blocks) {
  return launch_registers(tiles, blocks) * (tiles + 1) - consumer_registers(tiles, blocks) * tiles;
}

__device__ inline uint32_t aligned(uint32_t address) {
  return (address + kAlignment - 1) / kAlignment * kAlignment;
}

inline int multiprocessors() {
  static const int count = [] {
    int device = 0, most = 0;
    LONGSTRIDE_CUDA_CHECK(cudaGetDevice(&device));
    LONGSTRIDE_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMultiProcessorCount, device));
    return most;
  }();
  return count;
}

}  // namespace longstride::cuda::hopper
