// Stands in for decode/ in a build without CUDA. Nothing gets here: no tensor lies on a GPU then.
#include "longstride/base/check.h"
#include "longstride/device/backend.h"
#include "longstride/ops/cuda/attention_lists.h"
#include "longstride/ops/decode_step.h"

namespace longstride::cuda {

namespace {
[[noreturn]] void unavailable() { fail("{}", backend(DeviceKind::cuda).why_not(0)); }
}  // namespace

void prefer_portable_attention(bool) {}

struct DecodeSteps::State {};
DecodeSteps::DecodeSteps(const DecodeModel&, int, int64_t, DecodeSchedule) { unavailable(); }
DecodeSteps::~DecodeSteps() = default;
int64_t DecodeSteps::bytes(const DecodeShape&, int64_t) { unavailable(); }
const float* DecodeSteps::step(std::span<const DecodeSequence>) { unavailable(); }
void DecodeSteps::advance(std::span<const DecodeSequence>, int64_t, uint8_t*) { unavailable(); }

}  // namespace longstride::cuda
