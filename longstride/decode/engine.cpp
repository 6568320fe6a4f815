#include "longstride/decode/engine.h"

#include "longstride/base/check.h"
#include "longstride/device/backend.h"

namespace longstride {

std::unique_ptr<StepEngine> make_steps(Device device, const EngineParts& parts,
                                       const DecoderOptions& options) {
  return with_backend(
      device.kind, [&]<DeviceKind kind>() { return make_steps_on<kind>(device, parts, options); },
      [&]() -> std::unique_ptr<StepEngine> { fail("{}", backend(device).why_not(device.index)); });
}

int64_t steps_bytes(Device device, const ModelConfig& config, DType product, const DecoderOptions& options) {
  return with_backend(
      device.kind, [&]<DeviceKind kind>() { return steps_bytes_on<kind>(config, product, options); },
      [&]() -> int64_t { fail("{}", backend(device).why_not(device.index)); });
}

}  // namespace longstride
