// Calls of the CUDA runtime, checked. For .cu files and those that include CUDA's headers.
#pragma once

#include <cuda_runtime.h>

#include "longstride/base/check.h"

// LONGSTRIDE_CUDA_CHECK(cudaMemcpyAsync(...)): throws Error with the call's name and CUDA's reason.
#define LONGSTRIDE_CUDA_CHECK(call)                                                                     \
  do {                                                                                                  \
    const cudaError_t longstride_status = (call);                                                       \
    if (longstride_status != cudaSuccess) [[unlikely]]                                                  \
      ::longstride::fail("GPU: {} ({}) in {}", cudaGetErrorString(longstride_status),                   \
                         cudaGetErrorName(longstride_status), ::longstride::cuda::name_of_call(#call)); \
  } while (false)

namespace longstride::cuda {

// "cudaMalloc" of "cudaMalloc(&data, bytes)".
inline std::string name_of_call(const char* text) {
  const std::string call(text);
  return call.substr(0, call.find('('));
}

}  // namespace longstride::cuda
