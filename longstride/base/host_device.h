// Functions that kernels on the GPU share with the CPU carry this mark.
#pragma once

#ifdef __CUDACC__
#define LONGSTRIDE_HOST_DEVICE __host__ __device__
#else
#define LONGSTRIDE_HOST_DEVICE
#endif
