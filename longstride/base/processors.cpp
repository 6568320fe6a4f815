#include "longstride/base/processors.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include <sched.h>
#include <unistd.h>

#include "longstride/base/control_groups.h"

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
  for (const std::string& folder : control_group_folders("cpu", root)) {
    const double limit = quota_in(folder);
    if (limit > 0 && (least == 0 || limit < least)) least = limit;
  }
  return least;
}

int available_processors() {
  const int mask = std::max(1, processors_of_mask());
  const double quota = cpu_quota();
  return quota > 0 && quota < mask ? std::max(1, static_cast<int>(std::ceil(quota - 1e-6))) : mask;
}

}  // namespace longstride
