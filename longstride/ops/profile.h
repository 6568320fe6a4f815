// Where time goes, by op: every public op begins with a timer. Off by default; then a timer is one test of a
// flag.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "longstride/device/backend.h"

namespace longstride {

// What a call cannot do without: no device is faster than the slower of the two lets it be.
struct OpWork {
  int64_t bytes = 0;  // to or from memory, each operand once
  double flops = 0;   // of matrix products
  bool operator==(const OpWork&) const = default;
};

// The calls of one op, added up.
struct OpTime {
  std::string op;
  int64_t calls = 0;
  double seconds = 0;
  OpWork work;
};

// Starts or stops counting, in all threads; starting forgets what was counted before. For
// another kind than the CPU the time is that of the work which the ops queue on the current device of that
// kind; what is recorded into a graph is not counted.
void profile_ops(bool on, DeviceKind kind = DeviceKind::cpu);
bool profiling_ops();
// The ops that were called since profile_ops(true), longest first; with `by_work` an op's calls of unlike
// work apart. Waits for a device's work.
std::vector<OpTime> op_times(bool by_work = false);

// Counts the call it lives in, unless that is part of another op's call in this thread.
class OpTimer {
 public:
  OpTimer(const char* op, const OpWork& work) {
    if (profiling.load(std::memory_order_relaxed)) start(op, work);
  }
  ~OpTimer() {
    if (op_ != nullptr) stop();
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  friend void profile_ops(bool on, DeviceKind kind);
  friend bool profiling_ops();
  void start(const char* op, const OpWork& work);
  void stop() noexcept;

  static std::atomic<bool> profiling;
  const char* op_ = nullptr;  // null: not counted
  OpWork work_;
  std::chrono::steady_clock::time_point begin_;
  std::unique_ptr<Moment> begin_on_device_;  // none of work that is done at once
};

}  // namespace longstride
