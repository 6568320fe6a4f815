// What crash_test and power_test share: jobs that are disturbed so often, and what must be the same in the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace longstride::reliability {

using Worth = std::map<std::string, std::string>;  // contents of files, by name

[[noreturn]] inline void give_up(const std::string& what) { throw std::runtime_error(what); }

inline void expect_same(const Worth& expected, const Worth& seen) {
  for (const auto& [name, content] : expected) {
    const auto found = seen.find(name);
    if (found == seen.end()) give_up(name + " is missing");
    if (found->second != content) give_up(name + " differs from that of an undisturbed run");
  }
  for (const auto& [name, content] : seen)
    if (!expected.contains(name)) give_up(name + " is one too many");
}

// How many of `total` tries job `index` of `jobs` has. The first three are training, which has most to lose.
inline int64_t share_of(size_t index, size_t jobs, int64_t total) {
  constexpr size_t kTraining = 3;
  const int64_t weight = jobs > kTraining && index < kTraining ? 3 : 1;
  const int64_t weights = static_cast<int64_t>(jobs > kTraining ? jobs + 2 * kTraining : jobs);
  return std::max<int64_t>(1, (total * weight + weights - 1) / weights);
}

// A program NAME [TRIES] [SEED] [..], with up to `most` words: calls run(tries, seed).
template <class Run>
int run_tries(int count, char** arguments, const char* usage, int most, const Run& run) {
  const auto number = [&](int place, int64_t otherwise) {
    return count > place ? std::strtoll(arguments[place], nullptr, 10) : otherwise;
  };
  const int64_t tries = number(1, 120), seed = number(2, 1);
  if (count > most + 1 || tries < 1 || seed < 0) {
    fmt::print(stderr, "usage: {}\n", usage);
    return 2;
  }
  try {
    return run(tries, static_cast<uint64_t>(seed));
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}

}  // namespace longstride::reliability
