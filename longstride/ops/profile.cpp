#include "longstride/ops/profile.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
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

// Calls on the GPU whose time is not known yet.
struct GpuCall {
  const char* op;
  OpWork work;
  cuda::Moment begin, end;
};
bool on_gpu = false;
std::vector<GpuCall> gpu_calls;

thread_local bool inside_op = false;

// With the mutex held.
void add_call(const char* op, double seconds, const OpWork& work) {
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const Entry& known) {
    return known.op == nullptr || std::strcmp(known.op, op) == 0;
  });
  if (entry == entries.end()) return;
  entry->op = op;
  ++entry->calls;
  entry->seconds += seconds;
  entry->work.bytes += work.bytes;
  entry->work.flops += work.flops;
}

}  // namespace

std::atomic<bool> OpTimer::profiling{false};

bool profiling_ops() { return OpTimer::profiling.load(std::memory_order_relaxed); }

void profile_ops(bool on, bool gpu) {
  const std::lock_guard lock(mutex);
  if (on) {
    entries.fill({});
    gpu_calls.clear();
    on_gpu = gpu;
  }
  OpTimer::profiling = on;
}

std::vector<OpTime> op_times() {
  std::vector<OpTime> times;
  {
    const std::lock_guard lock(mutex);
    for (const GpuCall& call : gpu_calls)
      add_call(call.op, cuda::Moment::seconds(call.begin, call.end), call.work);
    gpu_calls.clear();
    for (const Entry& entry : entries)
      if (entry.op != nullptr) times.push_back({entry.op, entry.calls, entry.seconds, entry.work});
  }
  std::sort(times.begin(), times.end(),
            [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  return times;
}

void OpTimer::start(const char* op, const OpWork& work) {
  if (inside_op || (on_gpu && cuda::recording())) return;
  inside_op = true;
  op_ = op;
  work_ = work;
  if (on_gpu) begin_on_gpu_ = cuda::Moment::now();
  begin_ = std::chrono::steady_clock::now();
}

void OpTimer::stop() noexcept {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  inside_op = false;
  const std::lock_guard lock(mutex);
  if (!begin_on_gpu_) return add_call(op_, seconds, work_);
  try {
    gpu_calls.push_back({op_, work_, *begin_on_gpu_, cuda::Moment::now()});
  } catch (const std::exception&) {
    // The GPU has failed; whoever waits for it next says so.
  }
}

}  // namespace longstride
