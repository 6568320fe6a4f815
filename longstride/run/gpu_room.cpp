#include "longstride/run/gpu_room.h"

#include <algorithm>

#include "longstride/base/text.h"
#include "longstride/device/backend.h"

namespace longstride {

int64_t gpu_room(Device device) {
  return std::max<int64_t>(0, backend(device).memory(device.index).free - kGpuAllowance);
}

void check_gpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice) {
  if (device.kind == DeviceKind::cpu || bytes <= gpu_room(device)) return;
  const DeviceMemory there = backend(device).memory(device.index);
  fail("not enough memory on the GPU: {} needs {} and {} for libraries' code, {} of {} are free; {}", what,
       human_bytes(bytes), human_bytes(kGpuAllowance), human_bytes(there.free), human_bytes(there.total),
       advice);
}

}  // namespace longstride
