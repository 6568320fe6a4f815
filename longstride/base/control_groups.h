// Limits that containers and services set: the control groups of this process.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longstride {

// The folders that may hold limits of `controller` ("cpu", "memory"): those of this process's group and of
// the groups above it, innermost first, in version 2 and in version 1. Some may not exist: inside a
// container the group's name may be one of the host's, while only the container's own group is mounted, at
// the top. `root` stands for "/", so that a test can have its own tree.
std::vector<std::string> control_group_folders(std::string_view controller, const std::string& root = "");

}  // namespace longstride
