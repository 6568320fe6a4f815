// Being built.
#include "longstride/base/check.h"
#include "longstride/ops/cuda/ops.h"

namespace longstride::cuda {

void layer_norm_forward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, float, const Tensor&,
                        const Tensor&, const Tensor&) {
  fail("this op on the GPU is being built");
}
void layer_norm_apply(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const Tensor&, const Tensor&) {
  fail("this op on the GPU is being built");
}
int64_t layer_norm_backward_scratch_bytes(int64_t, int64_t) { fail("this op on the GPU is being built"); }
void layer_norm_backward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                         const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  fail("this op on the GPU is being built");
}

}  // namespace longstride::cuda
