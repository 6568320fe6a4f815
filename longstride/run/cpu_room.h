// Checks the CPU's memory before work takes it. The system promises more memory than there is, and then ends
// a process in the middle of its work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "longstride/base/cpu_memory.h"
#include "longstride/device/device.h"

namespace longstride {

// For work on a CPU that takes `bytes` more than this process holds. Throws Error if the machine, or the
// container it runs in, could not give so much even if nothing else ran: "not enough memory: WHAT needs ...;
// ADVICE". Returns a warning if it is only not free now, else "". For a GPU's work it does nothing.
std::string check_cpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice,
                           const CpuMemory& memory = cpu_memory());

// Bytes that a decoder's caches may take: a quarter of the memory that a process could have.
int64_t cpu_cache_room();

}  // namespace longstride
