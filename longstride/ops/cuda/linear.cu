// Being built.
#include "longstride/base/check.h"
#include "longstride/ops/cuda/ops.h"

namespace longstride::cuda {

int64_t linear_scratch_bytes(int64_t, int64_t, int64_t, DType, DType) {
  fail("this op on the GPU is being built");
}
void linear_forward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  fail("this op on the GPU is being built");
}
void linear_backward_input(const OpContext&, const Tensor&, const Tensor&, const Tensor&) {
  fail("this op on the GPU is being built");
}
void linear_backward_weight(const OpContext&, const Tensor&, const Tensor&, DType, const Tensor&,
                            const Tensor&) {
  fail("this op on the GPU is being built");
}

}  // namespace longstride::cuda
