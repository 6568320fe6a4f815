// Calls of the CUDA runtime, checked. For .cu files and those that include CUDA's headers.
#pragma once

#include <string>

#include <cuda_runtime.h>

#include "longstride/base/check.h"

// LONGSTRIDE_CUDA_CHECK(cudaMemcpyAsync(...)): throws Error with the call's name, CUDA's reason and what to do.
#define LONGSTRIDE_CUDA_CHECK(call)                                                                  \
  do {                                                                                               \
    const cudaError_t longstride_status = (call);                                                    \
    if (longstride_status != cudaSuccess) [[unlikely]]                                               \
      ::longstride::cuda::fail_in(longstride_status, "in", ::longstride::cuda::name_of_call(#call)); \
  } while (false)

namespace longstride::cuda {

// What to do about a failure, after a semicolon; nothing where CUDA's own words say it.
inline const char* advice(cudaError_t status) {
  switch (status) {
    // What a kernel did wrong, or what was done to it. The process can do nothing more on this GPU, another one can.
    case cudaErrorLaunchFailure:
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorHardwareStackError:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchTimeout:
      return "; this process has lost the GPU, another can go on (train --resume); if it comes "
             "back, compute-sanitizer names the kernel";
    case cudaErrorECCUncorrectable:
      return "; the GPU's memory is faulty: use another GPU (train --resume goes on)";
    case cudaErrorDevicesUnavailable:
      return "; another process has this GPU to itself: wait for it, or use another GPU";
    default:
      return "";
  }
}

// Throws Error: "GPU: an illegal memory access was encountered (cudaErrorIllegalAddress) in cudaMemcpyAsync; ...".
[[noreturn]] inline void fail_in(cudaError_t status, const char* where, const std::string& what) {
  fail("GPU: {} ({}) {} {}{}", cudaGetErrorString(status), cudaGetErrorName(status), where, what,
       advice(status));
}

// "cudaMalloc" of "cudaMalloc(&data, bytes)".
inline std::string name_of_call(const char* text) {
  const std::string call(text);
  return call.substr(0, call.find('('));
}

}  // namespace longstride::cuda
