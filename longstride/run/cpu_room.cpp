#include "longstride/run/cpu_room.h"

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/memory.h"

namespace longstride {

std::string check_cpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice,
                           const CpuMemory& memory) {
  if (device.kind != DeviceKind::cpu) return "";
  const int64_t held = resident_memory();
  const char* where = memory.limited ? "this container" : "this machine";
  LONGSTRIDE_CHECK(bytes <= memory.most - held, "not enough memory: {} needs {}, {} has {}; {}", what,
                   human_bytes(bytes), where, human_bytes(memory.most), advice);
  if (bytes <= memory.free) return "";
  return fmt::format(
      "{} needs {}, of the memory of {} {} are free: it may become slow or be ended by the system; {}", what,
      human_bytes(bytes), where, human_bytes(memory.free), advice);
}

int64_t cpu_cache_room() { return cpu_memory().most / 4; }

}  // namespace longstride
