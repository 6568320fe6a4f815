#include "longstride/sample/gpu_steps.h"

#include "longstride/base/check.h"

namespace longstride {

std::unique_ptr<StepEngine> make_gpu_steps(const ModelConfig&, const ModelParameters&, const KeyCaches&,
                                           Device, const DecoderOptions&) {
  fail("this build cannot decode on a GPU yet; use --device cpu");
}

int64_t gpu_steps_bytes(const ModelConfig&, DType, const DecoderOptions&) { return 0; }

}  // namespace longstride
