#include "longstride/ops/profile.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <mutex>
#include <utility>

namespace longstride {

namespace {

struct Entry {
  const char* op = nullptr;  // null from the first free entry on
  int64_t calls = 0;
  double seconds = 0;
  OpWork work, of_call;  // of all calls together, and of each
};

// More than the ops and works of a step, so that nothing is allocated while it runs.
constexpr size_t kMostEntries = 256;
std::mutex mutex;
std::array<Entry, kMostEntries> entries;

// Calls whose work is queued, so that their time is not known yet.
struct QueuedCall {
  const char* op;
  OpWork work;
  std::unique_ptr<Moment> begin, end;
};
DeviceKind profiled = DeviceKind::cpu;
std::vector<QueuedCall> queued_calls;

bool is_queued() { return profiled != DeviceKind::cpu; }

thread_local bool inside_op = false;

// Call it with the mutex held.
void add_call(const char* op, double seconds, const OpWork& work) {
  const auto is_op = [op](const Entry& known) { return std::strcmp(known.op, op) == 0; };
  auto entry = std::find_if(entries.begin(), entries.end(), [&](const Entry& known) {
    return known.op == nullptr || (is_op(known) && known.of_call == work);
  });
  // When all entries are used, calls of different work are no longer kept apart.
  if (entry == entries.end()) entry = std::find_if(entries.begin(), entries.end(), is_op);
  if (entry == entries.end()) return;
  entry->op = op;
  if (entry->calls == 0) entry->of_call = work;
  ++entry->calls;
  entry->seconds += seconds;
  entry->work.bytes += work.bytes;
  entry->work.flops += work.flops;
}

}  // namespace

std::atomic<bool> OpTimer::profiling{false};

bool profiling_ops() { return OpTimer::profiling.load(std::memory_order_relaxed); }

void profile_ops(bool on, DeviceKind kind) {
  const std::lock_guard lock(mutex);
  if (on) {
    entries.fill({});
    queued_calls.clear();
    profiled = kind;
  }
  OpTimer::profiling = on;
}

std::vector<OpTime> op_times(bool by_work) {
  std::vector<OpTime> times;
  {
    const std::lock_guard lock(mutex);
    for (const QueuedCall& call : queued_calls)
      add_call(call.op, call.end->seconds_since(*call.begin), call.work);
    queued_calls.clear();
    for (const Entry& entry : entries) {
      if (entry.op == nullptr) break;
      const auto known = by_work ? times.end()
                                 : std::find_if(times.begin(), times.end(),
                                                [&](const OpTime& time) { return time.op == entry.op; });
      OpTime& time = known == times.end() ? times.emplace_back(OpTime{entry.op, 0, 0, {}}) : *known;
      time.calls += entry.calls;
      time.seconds += entry.seconds;
      time.work.bytes += entry.work.bytes;
      time.work.flops += entry.work.flops;
    }
  }
  std::sort(times.begin(), times.end(),
            [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  return times;
}

void OpTimer::start(const char* op, const OpWork& work) {
  if (inside_op || (is_queued() && backend(profiled).recording())) return;
  // Only this line may throw: nothing is marked before it.
  if (is_queued()) begin_on_device_ = backend(profiled).moment();
  inside_op = true;
  op_ = op;
  work_ = work;
  begin_ = std::chrono::steady_clock::now();
}

void OpTimer::stop() noexcept {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  inside_op = false;
  const std::lock_guard lock(mutex);
  if (begin_on_device_ == nullptr) return add_call(op_, seconds, work_);
  try {
    queued_calls.push_back({op_, work_, std::move(begin_on_device_), backend(profiled).moment()});
  } catch (const std::exception&) {
    // The device has failed. The next call that waits for it reports that.
  }
}

}  // namespace longstride
