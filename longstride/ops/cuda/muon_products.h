// Which kernels compute the products of Newton-Schulz on a GPU, for tests and benchmarks.
#pragma once

namespace longstride::cuda {

enum class MuonProducts { cublas, own };

// From now on, where there is a choice; our own kernels at first, which are for Hopper. cuBLAS serves everything else.
void prefer_products(MuonProducts products);

}  // namespace longstride::cuda
