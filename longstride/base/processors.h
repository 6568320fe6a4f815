// How many processors this process may use.
#pragma once

#include <string>

namespace longstride {

// Processors' worth of time that control groups grant (the cpu.max of version 2, the cfs quota of version 1:
// limits of containers and services), the least of the group and those above it; 0: no limit. `root` stands
// for "/", so that a test can have a tree of its own.
double cpu_quota(const std::string& root = "");

// The processors of the affinity mask, or as many as the quota pays for, rounded up, if those are fewer; at
// least 1.
int available_processors();

}  // namespace longstride
