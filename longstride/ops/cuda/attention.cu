// Being built.
#include "longstride/base/check.h"
#include "longstride/ops/cuda/ops.h"

namespace longstride::cuda {

class AttentionLists {};

std::shared_ptr<const AttentionLists> upload_lists(const AttentionPlan&, int) {
  fail("this op on the GPU is being built");
}
void attention_forward(const OpContext&, const AttentionPlan&, const AttentionTensors&) {
  fail("this op on the GPU is being built");
}
void attention_backward(const OpContext&, const AttentionPlan&, const AttentionTensors&,
                        const AttentionGradients&) {
  fail("this op on the GPU is being built");
}
int64_t attention_scratch_bytes(const AttentionPlan&, int64_t, int64_t, int64_t, int64_t) {
  fail("this op on the GPU is being built");
}
void attention_one(const OpContext&, const LayerPattern&, int64_t, const Tensor&, const Tensor&,
                   const Tensor&, float, const Tensor&) {
  fail("this op on the GPU is being built");
}

}  // namespace longstride::cuda
