// Which processor computes.
#pragma once

#include <string>
#include <string_view>

#include "longstride/base/tensor.h"

namespace longstride {

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// "cpu", "cuda", "cuda:1" or "auto" (the first GPU if this build and machine have one). Throws Error.
Device parse_device(std::string_view text);
std::string name_of(Device device);

// Threads that the CPU backend uses; 0 restores the default (the processor's, or OMP_NUM_THREADS).
void set_threads(int threads);
int threads();

// The processor and the instruction sets that matter to us, as in "Intel Xeon, AVX-512 BF16 AMX".
std::string describe_cpu();
// Products of bf16 matrices run in hardware (AVX512-BF16 or AMX), which instructions.h may forbid.
bool cpu_has_bf16();

// Implemented by cuda.cu or no_cuda.cpp.
namespace cuda {
bool built();        // this binary has a CUDA backend
int device_count();  // GPUs that it can use; 0 without a driver
void* allocate(int index, int64_t bytes);
void release(int index, void* data);
void copy(void* to, const void* from, int64_t bytes);
void fill_zero(void* data, int64_t bytes);
}  // namespace cuda

}  // namespace longstride
