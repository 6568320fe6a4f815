#include "longstride/base/control_groups.h"

#include <algorithm>
#include <fstream>

#include "longstride/base/text.h"

namespace longstride {

std::vector<std::string> control_group_folders(std::string_view controller, const std::string& root) {
  std::vector<std::string> folders;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // "0::/group" in version 2, "4:cpu,cpuacct:/group" in version 1.
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1) == "/" ? "" : line.substr(second + 1);
    const std::vector<std::string> names = split(controllers, ',');
    std::vector<std::string> mounts;
    if (controllers.empty())
      mounts = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    else if (std::find(names.begin(), names.end(), controller) != names.end())
      mounts = {"/sys/fs/cgroup/" + std::string(controller), "/sys/fs/cgroup/" + controllers};
    for (const std::string& mount : mounts) {
      for (std::string above = group;;) {
        folders.push_back(root + mount + above);
        const size_t slash = above.rfind('/');
        if (above.empty() || slash == std::string::npos) break;
        above.resize(slash);
      }
    }
  }
  return folders;
}

}  // namespace longstride
