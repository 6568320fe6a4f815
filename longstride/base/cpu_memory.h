// How much of the CPU's memory this process may have.
#pragma once

#include <cstdint>
#include <string>

namespace longstride {

struct CpuMemory {
  // In bytes. What the system does not tell is the largest int64_t.
  int64_t most = 0;      // that a process could have if nobody else had any, swap included
  int64_t free = 0;      // without swap, and without taking any from others
  bool limited = false;  // by a control group (a container, a service), to less than the machine has
};

// From /proc/meminfo and the limits of this process's control groups, version 2 or 1. Pages of files that
// can be dropped count as free. `root` stands for "/", so that a test can have its own tree.
CpuMemory cpu_memory(const std::string& root = "");

}  // namespace longstride
