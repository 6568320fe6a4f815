// Being built.
#include "longstride/base/check.h"
#include "longstride/ops/cuda/ops.h"

namespace longstride::cuda {

void quantize(const OpContext&, const Tensor&, const QuantizedMatrix&) {
  fail("this op on the GPU is being built");
}
void dequantize(const OpContext&, const QuantizedMatrix&, const Tensor&) {
  fail("this op on the GPU is being built");
}
void quantized_linear_forward(const OpContext&, const Tensor&, const QuantizedMatrix&, const Tensor&,
                              const Tensor&) {
  fail("this op on the GPU is being built");
}

}  // namespace longstride::cuda
