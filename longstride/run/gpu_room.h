// Checks a GPU's free memory before work takes it.
#pragma once

#include <cstdint>
#include <string_view>

#include "longstride/device/device.h"

namespace longstride {

// An allowance for what a GPU holds besides what is planned: cuBLASLt's code, kernels that are loaded when
// they are first called, a recorded step.
inline constexpr int64_t kGpuAllowance = int64_t{128} << 20;
// How much of that allowance training uses, as planned. 26 runs of 6 to 30 layers on an H200 used 12 to 21 MiB, one with three
// contexts 55, one of 240 layers 48.
inline constexpr int64_t kDriverMemory = int64_t{16} << 20;
// Sequences that a GPU's ops take at a time: the most blocks that a grid may have along an axis.
inline constexpr int64_t kMostGpuSequences = 65535;

// Bytes of the GPU's memory that may be planned with: the free memory less the allowance.
int64_t gpu_room(Device device);

// Throws Error if `device` is a GPU with less than `bytes` to plan with: "not enough memory on the GPU: WHAT
// needs ...; ADVICE".
void check_gpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice);

}  // namespace longstride
