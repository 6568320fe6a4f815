// Being built.
#include "longstride/base/check.h"
#include "longstride/ops/cuda/ops.h"

namespace longstride::cuda {

void embedding_forward(const OpContext&, const Tensor&, const EmbeddingTables&, const Tensor&) {
  fail("this op on the GPU is being built");
}
void embedding_one(const OpContext&, const Tensor&, int64_t, const EmbeddingTables&, const Tensor&) {
  fail("this op on the GPU is being built");
}
void embedding_backward(const OpContext&, const Tensor&, const Tensor&, const EmbeddingTables&) {
  fail("this op on the GPU is being built");
}

}  // namespace longstride::cuda
