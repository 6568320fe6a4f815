#include "longstride/decode/engine.h"

#include "longstride/base/check.h"
#include "longstride/device/backend.h"

namespace longstride {

std::unique_ptr<StepEngine> make_steps(Device device, const EngineParts& parts,
                                       const DecoderOptions& options) {
#define LONGSTRIDE_MAKE(name)               \
  if constexpr (is_built(DeviceKind::name)) \
    if (device.kind == DeviceKind::name) return name::make_steps(device, parts, options);
  LONGSTRIDE_FOR_EACH_BACKEND(LONGSTRIDE_MAKE)
#undef LONGSTRIDE_MAKE
  fail("{}", backend(device).why_not(device.index));
}

int64_t steps_bytes(Device device, const ModelConfig& config, DType product, const DecoderOptions& options) {
#define LONGSTRIDE_BYTES(name)              \
  if constexpr (is_built(DeviceKind::name)) \
    if (device.kind == DeviceKind::name) return name::steps_bytes(config, product, options);
  LONGSTRIDE_FOR_EACH_BACKEND(LONGSTRIDE_BYTES)
#undef LONGSTRIDE_BYTES
  fail("{}", backend(device).why_not(device.index));
}

}  // namespace longstride
