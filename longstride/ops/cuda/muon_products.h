// Which kernels compute the products of Newton-Schulz on a GPU, for tests and benchmarks.
#pragma once

namespace longstride::cuda {

enum class MuonProducts { cublas, own };

// From now on, where there is a choice; cuBLAS at first. The kernels of our own are for Hopper; they wait for a check of
// their committed form on a GPU, and `own` will be the first choice after that.
void prefer_products(MuonProducts products);

}  // namespace longstride::cuda
