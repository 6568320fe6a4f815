// The current GPU as launchers of kernels see it; no CUDA header is needed to include this. The rest of the
// library uses backend.h.
#pragma once

#include <cstdint>

namespace longstride::cuda {

// Its stream, as cudaStream_t.
void* stream();
// Backend::copy of this backend.
void copy(void* to, const void* from, int64_t bytes);

}  // namespace longstride::cuda
