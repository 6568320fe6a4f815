// Which kernels compute the products of Newton-Schulz on a GPU, for tests and benchmarks.
#pragma once

namespace longstride::cuda {

enum class MuonProducts { chosen, cublas };

// From now on, where there is a choice.
void prefer_products(MuonProducts products);

}  // namespace longstride::cuda
