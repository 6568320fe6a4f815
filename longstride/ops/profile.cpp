#include "longstride/ops/profile.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

namespace longstride {

namespace {

struct Entry {
  const char* op = nullptr;  // null from the first free entry on
  int64_t calls = 0;
  double seconds = 0;
  OpWork work;
};

// More than there are ops: nothing is allocated while a step runs.
constexpr size_t kMostOps = 64;
std::mutex mutex;
std::array<Entry, kMostOps> entries;

thread_local bool inside_op = false;

}  // namespace

std::atomic<bool> OpTimer::profiling{false};

void profile_ops(bool on) {
  const std::lock_guard lock(mutex);
  if (on) entries.fill({});
  OpTimer::profiling = on;
}

std::vector<OpTime> op_times() {
  std::vector<OpTime> times;
  {
    const std::lock_guard lock(mutex);
    for (const Entry& entry : entries)
      if (entry.op != nullptr) times.push_back({entry.op, entry.calls, entry.seconds, entry.work});
  }
  std::sort(times.begin(), times.end(),
            [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  return times;
}

void OpTimer::start(const char* op, const OpWork& work) {
  if (inside_op) return;
  inside_op = true;
  op_ = op;
  work_ = work;
  begin_ = std::chrono::steady_clock::now();
}

void OpTimer::stop() noexcept {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  inside_op = false;
  const std::lock_guard lock(mutex);
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const Entry& known) {
    return known.op == nullptr || std::strcmp(known.op, op_) == 0;
  });
  if (entry == entries.end()) return;
  entry->op = op_;
  ++entry->calls;
  entry->seconds += seconds;
  entry->work.bytes += work_.bytes;
  entry->work.flops += work_.flops;
}

}  // namespace longstride
