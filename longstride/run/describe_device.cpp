#include "longstride/run/describe_device.h"

#include <fmt/format.h>

#include "longstride/device/backend.h"
#include "longstride/device/instructions.h"

namespace longstride {

std::string describe_device(Device device) {
  if (device.kind != DeviceKind::cpu)
    return fmt::format("{}: {}", name_of(device), backend(device).describe(device.index));
  const std::string limit =
      instruction_limit() == Instructions::any ? "" : ", limited to " + name_of(instruction_limit());
  return fmt::format("cpu: {}{}, {} threads", describe_cpu(), limit, threads());
}

}  // namespace longstride
