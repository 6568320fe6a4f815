// This program once more, as a process of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace longstride {

struct ChildCommand {
  std::vector<std::string> words;                                // after the program's name
  std::vector<std::pair<std::string, std::string>> environment;  // in place of this process's
  std::string log;  // standard output and standard error are appended to this file
};

// Ends with this process, by SIGTERM, if that has not waited for it.
class Child {
 public:
  // Throws Error.
  explicit Child(const ChildCommand& command);
  // Asks it to end, and waits for it.
  ~Child();
  Child(Child&& other) noexcept : process_(std::exchange(other.process_, 0)) {}
  Child& operator=(Child&& other) noexcept { return std::swap(process_, other.process_), *this; }

  // Its exit code once it has ended, 128 + the signal's number where a signal ended it.
  std::optional<int> ended();
  void send(int signal) const;

 private:
  pid_t process_ = 0;  // 0: ended
};

// What CUDA_VISIBLE_DEVICES has to be, for each of `count` children, that each sees one GPU of those that this process
// sees; `visible` is this process's own value, null if it has none.
std::vector<std::string> one_gpu_each(int64_t count, const char* visible);

}  // namespace longstride
