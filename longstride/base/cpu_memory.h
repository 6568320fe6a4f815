// How much of the CPU's memory this process may have.
#pragma once

#include <cstdint>
#include <string>

namespace longstride {

struct CpuMemory {
  // Bytes; what the system does not tell is the largest number there is.
  int64_t most = 0;      // that a process could have if nobody else had any, swap included
  int64_t free = 0;      // without swap, and without taking any from others
  bool limited = false;  // by a control group (a container, a service), to less than the machine has
};

// By /proc/meminfo and the limits of this process's control groups, of version 2 or 1. Pages of files that
// can be dropped count as free. `root` stands for "/", so that a test can have a tree of its own.
CpuMemory cpu_memory(const std::string& root = "");

}  // namespace longstride
