#include "longstride/base/processors.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include "longstride/base/text.h"

namespace longstride {

namespace {

// The two numbers of cpu.max, or of the two files of version 1, as processors; 0: no limit, or no such file.
double ratio(std::ifstream quota, std::ifstream period) {
  double allowed = 0, of = 0;
  if (!(quota >> allowed) || allowed <= 0) return 0;  // "max" and -1 are no limit
  if (period.is_open() ? !(period >> of) : !(quota >> of)) return 0;
  return of > 0 ? allowed / of : 0;
}

double quota_in(const std::string& folder) {
  const double limit = ratio(std::ifstream(folder + "/cpu.max"), {});
  if (limit > 0) return limit;
  return ratio(std::ifstream(folder + "/cpu.cfs_quota_us"), std::ifstream(folder + "/cpu.cfs_period_us"));
}

// The least limit of `group` ("/a/b") and the groups above it, below `mount`. Inside a container the group's
// name may be one of the host's, of which nothing is mounted: only the top is found then, which is its own.
double least_quota(const std::string& mount, std::string group) {
  double least = 0;
  for (;;) {
    const double limit = quota_in(mount + group);
    if (limit > 0 && (least == 0 || limit < least)) least = limit;
    const size_t slash = group.rfind('/');
    if (group.empty() || slash == std::string::npos) return least;
    group.resize(slash);
  }
}

int processors_of_mask() {
  // The kernel refuses masks that are smaller than its own.
  for (int most = 1024; most <= 1 << 20; most *= 2) {
    cpu_set_t* mask = CPU_ALLOC(most);
    const size_t bytes = CPU_ALLOC_SIZE(most);
    const bool known = mask != nullptr && sched_getaffinity(0, bytes, mask) == 0;
    const int count = known ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (known) return count;
  }
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

}  // namespace

double cpu_quota(const std::string& root) {
  double least = 0;
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
    else if (std::find(names.begin(), names.end(), "cpu") != names.end())
      mounts = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/" + controllers};
    for (const std::string& mount : mounts) {
      const double limit = least_quota(root + mount, group);
      if (limit > 0 && (least == 0 || limit < least)) least = limit;
    }
  }
  return least;
}

int available_processors() {
  const int mask = std::max(1, processors_of_mask());
  const double quota = cpu_quota();
  return quota > 0 && quota < mask ? std::max(1, static_cast<int>(std::ceil(quota - 1e-6))) : mask;
}

}  // namespace longstride
