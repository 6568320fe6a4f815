// A look at the CPU's memory before it is asked for: the system gives out more than there is, and ends a
// process later, in the midst of its work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "longstride/base/cpu_memory.h"
#include "longstride/device/device.h"

namespace longstride {

// For work on a CPU that takes `bytes` more than this process holds. Throws Error if the machine, or the
// container it runs in, could not give them even to it alone: "not enough memory: WHAT needs ...; ADVICE".
// Returns what to warn of if they are not free now, else "". A GPU's work needs nothing of note.
std::string check_cpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice,
                           const CpuMemory& memory = cpu_memory());

// Bytes that a decoder's caches may take by themselves: a quarter of what there is.
int64_t cpu_cache_room();

}  // namespace longstride
