// What the launchers of kernels ask of the current GPU; no CUDA header is needed to include this. What others
// ask of it stands in backend.h.
#pragma once

#include <cstdint>

namespace longstride::cuda {

// Its stream, as cudaStream_t.
void* stream();
// Backend::copy of this backend.
void copy(void* to, const void* from, int64_t bytes);

}  // namespace longstride::cuda
