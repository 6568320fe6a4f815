#include "longstride/base/cpu_memory.h"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <optional>
#include <sstream>

#include "longstride/base/control_groups.h"

namespace longstride {

namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
// Version 1 reports this value, rounded down to pages, where there is no limit.
constexpr int64_t kNoLimit = int64_t{1} << 60;

int64_t sum(int64_t a, int64_t b) { return a > kUnknown - b ? kUnknown : a + b; }

// The number behind a name at the beginning of a line ("MemTotal: 16 kB", "inactive_file 4096").
std::optional<int64_t> field(const std::string& file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    int64_t number = 0;
    if (words >> word && word == name && words >> number && number >= 0) return number;
  }
  return {};
}

// The number in the first of these files that exists; nothing for "max", which means no limit.
std::optional<int64_t> number_in(const std::string& folder, std::initializer_list<const char*> files) {
  for (const char* file : files) {
    std::ifstream in(folder + "/" + file);
    int64_t number = 0;
    if (in.is_open())
      return in >> number && number >= 0 && number < kNoLimit ? std::optional(number) : std::nullopt;
  }
  return {};
}

// Pages of files in a group, which the system takes back before it ends a process.
int64_t droppable(const std::string& folder) {
  int64_t bytes = 0;
  for (const char* state : {"inactive_file", "active_file"}) {
    const std::string stat = folder + "/memory.stat", name = state;
    bytes += field(stat, "total_" + name).value_or(field(stat, name).value_or(0));
  }
  return bytes;
}

}  // namespace

CpuMemory cpu_memory(const std::string& root) {
  constexpr int64_t kKilobyte = 1024;
  const auto machine = [&](const char* name) {
    const std::optional<int64_t> kilobytes = field(root + "/proc/meminfo", name);
    return kilobytes ? *kilobytes * kKilobyte : kUnknown;
  };
  const int64_t swap = machine("SwapTotal:") == kUnknown ? 0 : machine("SwapTotal:");
  CpuMemory memory{sum(machine("MemTotal:"), swap), machine("MemAvailable:")};
  for (const std::string& folder : control_group_folders("memory", root)) {
    const auto limit = number_in(folder, {"memory.max", "memory.limit_in_bytes"});
    if (!limit) continue;
    // Version 2 limits swap by itself, version 1 the sum of both.
    int64_t with_swap = sum(*limit, number_in(folder, {"memory.swap.max"}).value_or(swap));
    if (const auto both = number_in(folder, {"memory.memsw.limit_in_bytes"}))
      with_swap = std::min(with_swap, *both);
    const int64_t used = number_in(folder, {"memory.current", "memory.usage_in_bytes"}).value_or(0);
    if (with_swap < memory.most) memory.most = with_swap, memory.limited = true;
    const int64_t left = std::max<int64_t>(0, *limit - std::max<int64_t>(0, used - droppable(folder)));
    if (left < memory.free) memory.free = left, memory.limited = true;
  }
  return memory;
}

}  // namespace longstride
