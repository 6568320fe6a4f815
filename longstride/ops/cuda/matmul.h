// Matrix products through cuBLASLt, which is loaded when the first product runs: a binary with the CUDA
// backend also starts on machines without CUDA's libraries.
#pragma once

#include "longstride/ops/context.h"

namespace longstride::cuda {

// c = a b^T, a b or a^T b, each matrix row-major with a row stride; f32 sums. The elements of a and b are of
// one dtype (f32, bf16, f16); f32 products are not rounded to tf32.
enum class Product : uint8_t {
  a_bt,  // a (M, K), b (N, K)
  a_b,   // a (M, K), b (K, N)
  at_b,  // a (K, M), b (K, N)
};

// `count` products at once: their matrices lie these numbers of elements behind each other.
struct MatmulBatch {
  int64_t count = 1;
  int64_t a = 0, b = 0, c = 0;
};

// c = scale * product [+ bias] [+ added_scale * added]
struct Matmul {
  Product product = Product::a_bt;
  Tensor a, b;
  Tensor c;          // (M, N) f32 or of the dtype of a
  Tensor bias;       // (N) f32 or of the dtype of c, added to every row; may be empty
  bool add = false;  // c += instead of c =
  float scale = 1;
  Tensor added = {};  // laid out as c, of its dtype; may be empty, and then `add` may be true
  float added_scale = 1;
  MatmulBatch batch = {};
};

// Bytes of workspace for any product.
inline constexpr int64_t kMatmulWorkspace = int64_t{32} << 20;

// The kernel is chosen by cuBLASLt's heuristics once for each shape and kept, so that the same product gives
// the same bits from run to run. `workspace` has kMatmulWorkspace bytes. Returns false, with nothing queued,
// if there is no kernel for a bias of this dtype.
bool matmul(const Matmul& m, void* workspace);

}  // namespace longstride::cuda
