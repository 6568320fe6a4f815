// How many processors this process may use.
#pragma once

#include <string>

namespace longstride {

// The limits of containers and services: how many processors' worth of time control groups grant (cpu.max of
// version 2, the cfs quota of version 1). It is the least of the process's group and those above it; 0: no
// limit. `root` stands for "/", so that a test can have its own tree.
double cpu_quota(const std::string& root = "");

// The number of processors in the affinity mask, or the quota rounded up, whichever is less; at least 1.
int available_processors();

}  // namespace longstride
