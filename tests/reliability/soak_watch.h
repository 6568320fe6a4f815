// What a long run is watched for, and the rules that say when something grows or becomes slower.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longstride::reliability {

// One look at a process.
struct Reading {
  double seconds = 0;  // since the start
  int64_t memory = 0;  // resident bytes
  int64_t descriptors = 0, threads = 0;
  double cpu_seconds = 0;  // user and system
  int64_t steps = 0;
  double tokens_per_second = 0;
  int64_t folder_bytes = 0;  // of its folder, without files that grow by design
  int64_t free_bytes = 0;    // of the disk
};

// A rule and what it found: the second quarter of the time against the last. The first is the start.
struct Finding {
  std::string name, unit;
  double before = 0, after = 0;
  double limit = 0;  // of `after`
  bool judged = true;
  std::string why_not;

  bool failed() const { return judged && after > limit; }
};

// The median of the last quarter may be `factor` of that of the second quarter, and `more`.
Finding growth_of(const std::string& name, const std::string& unit, const std::vector<double>& series,
                  double factor, double more);

// Memory and folder: 3 % + 8 MiB. Descriptors and threads: 3 % + 2. CPU time for a step: half as much again,
// which is a third fewer tokens for each second of a core; unlike the wall clock's it does not depend on what
// else the machine does.
std::vector<Finding> judge(const std::vector<Reading>& readings);

// Memory: 3 % + 8 MiB, of the most that each of many short processes took.
Finding judge_peaks(const std::vector<double>& bytes);

// Memory of a GPU: 3 % + 8 MiB, of looks at it while nothing but the training used it.
Finding judge_gpu_memory(const std::vector<double>& bytes);

// A look at a living process. Throws std::runtime_error if it is gone.
Reading look_at(int process);
// Of all files below the folder but the curves, which grow by design.
int64_t bytes_in(const std::string& folder);

// Bytes of the GPU of `device`, as cuda:1, that processes hold, all together. Throws std::runtime_error without nvidia-smi.
double gpu_memory(const std::string& device);

std::string table_of(const std::vector<Finding>& findings);

}  // namespace longstride::reliability
