#include "longstride/run/gpu_room.h"

#include "longstride/base/text.h"
#include "longstride/device/cuda.h"

namespace longstride {

void check_gpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice) {
  if (device.kind == DeviceKind::cpu) return;
  const cuda::DeviceMemory there = cuda::memory(device.index);
  if (bytes <= there.free) return;
  fail("not enough memory on the GPU: {} needs {}, {} of {} are free; {}", what,
       human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(there.free)),
       human_bytes(static_cast<double>(there.total)), advice);
}

}  // namespace longstride
