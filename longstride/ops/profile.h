// Where time goes, by op. Every public op begins with a timer. By default it is off, and then costs one test
// of a flag.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "longstride/device/backend.h"

namespace longstride {

// The least work of a call: no device is faster than the slower of the two lets it be.
struct OpWork {
  int64_t bytes = 0;  // to or from memory, each operand once
  double flops = 0;   // of matrix products
  bool operator==(const OpWork&) const = default;
};

// The sum over calls of one op.
struct OpTime {
  std::string op;
  int64_t calls = 0;
  double seconds = 0;
  OpWork work;
};

// Starts or stops counting, in all threads. Starting forgets earlier counts. For a kind other than the CPU,
// the time is that of the work which ops queue on the current device of that kind; work that is recorded
// into a graph is not counted.
void profile_ops(bool on, DeviceKind kind = DeviceKind::cpu);
bool profiling_ops();
// The ops that were called since profile_ops(true), longest first; with `by_work`, one entry for each
// different work of an op. Waits for a device's work.
std::vector<OpTime> op_times(bool by_work = false);

// Counts the call in which it lives, unless that is part of another op's call in this thread.
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
  std::unique_ptr<Moment> begin_on_device_;  // null if the work is done at once
};

}  // namespace longstride
