#include "longstride/base/threads.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>

#include "longstride/base/check.h"
#include "longstride/base/processors.h"
#include "longstride/base/signals.h"

namespace longstride {

namespace {

using Clock = std::chrono::steady_clock;

// How long a thread looks before it sleeps: about what sleeping and waking cost. docs/performance-history.md has
// what was measured for a small model.
constexpr std::chrono::microseconds kLookFor{20};

inline void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns when done() is true. Looks at it for a while first, then sleeps until `word` is no longer the
// value that it had before done() was false.
template <class Done>
void wait_until(std::atomic<uint32_t>& word, const Done& done) {
  constexpr int kLooks = 32;  // from one look at the clock to the next
  const Clock::time_point until = Clock::now() + kLookFor;
  do {
    for (int look = 0; look < kLooks; ++look) {
      if (done()) return;
      pause_processor();
    }
  } while (Clock::now() < until);
  for (;;) {
    const uint32_t seen = word.load();
    if (done()) return;
    word.wait(seen);
  }
}

// Called before a thread takes what another has left. On few cores the caller would do most small loops alone, and the
// thread sanitizer would see no two threads in them.
void let_others_begin() {
#if defined(__SANITIZE_THREAD__)
  std::this_thread::sleep_for(std::chrono::microseconds(50));
#endif
}

thread_local bool inside_loop = false;
thread_local int thread_limit = 0;  // 0: the default

}  // namespace

// The threads that help one calling thread, started when it first needs them and ended with it.
class ThreadTeam {
 public:
  ThreadTeam() = default;
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  static ThreadTeam& of_this_thread();

  void run(int64_t count, int team, threads_detail::Region region, const void* body);
  bool claim(LoopItems& items, int64_t& item);

 private:
  static constexpr int kMostShares = 256;  // threads beyond begin with a share of another

  // The next item of a share, with the number of the share's loop in the upper 32 bits.
  struct alignas(64) Share {
    std::atomic<uint64_t> next{0};
  };
  static uint64_t tagged(uint32_t loop, uint64_t item) { return uint64_t{loop} << 32 | item; }

  int start_helpers(int count);
  void help(int thread, uint32_t seen);
  void take_part(int thread, uint32_t loop);

  // The loop that runs. A thread that is late may already read values of the next one. It finds out when it
  // claims an item, since all shares have the new loop's number before any of this changes.
  std::atomic<int64_t> count_{0};
  std::atomic<int> team_{0}, shares_in_use_{0};
  std::atomic<threads_detail::Region> region_{nullptr};
  std::atomic<const void*> body_{nullptr};
  std::array<Share, kMostShares> shares_;

  alignas(64) std::atomic<uint32_t> loop_{0};  // its number; changes when there is work, or the end
  alignas(64) std::atomic<uint32_t> done_{0};  // items of it
  std::atomic<bool> ending_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::vector<std::thread> helpers_;
};

bool ThreadTeam::claim(LoopItems& items, int64_t& item) {
  for (int tried = 0; tried < items.shares_; ++tried) {
    if (tried == 1) let_others_begin();
    std::atomic<uint64_t>& next = shares_[static_cast<size_t>(items.share_)].next;
    const auto end = static_cast<uint32_t>((items.share_ + 1) * items.count_ / items.shares_);
    uint64_t seen = next.load(std::memory_order_acquire);
    while (seen >> 32 == items.loop_ && static_cast<uint32_t>(seen) < end) {
      if (!next.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      item = static_cast<uint32_t>(seen);
      ++items.claimed_;
      return true;
    }
    if (seen >> 32 != items.loop_) return false;
    items.share_ = items.share_ + 1 == items.shares_ ? 0 : items.share_ + 1;
  }
  return false;
}

bool LoopItems::next(int64_t& item) {
  if (held_ >= 0) {
    item = held_;
    held_ = -1;
    return true;
  }
  if (team_ != nullptr) return team_->claim(*this, item);
  if (next_ >= count_) return false;
  item = next_++;
  return true;
}

void ThreadTeam::take_part(int thread, uint32_t loop) {
  LoopItems items;
  items.team_ = this, items.loop_ = loop, items.thread_ = thread;
  items.count_ = count_.load(std::memory_order_acquire);
  items.shares_ = shares_in_use_.load(std::memory_order_acquire);
  if (items.shares_ == 0) return;
  items.share_ = thread % items.shares_;
  const threads_detail::Region region = region_.load(std::memory_order_acquire);
  const void* body = body_.load(std::memory_order_acquire);
  int64_t first = 0;
  if (!claim(items, first)) return;
  items.held_ = first;
  try {
    region(body, items);
  } catch (...) {
    {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    for (int64_t skipped; items.next(skipped);) {
    }
  }
  done_.fetch_add(static_cast<uint32_t>(items.claimed_));
  if (thread != 0) done_.notify_one();
}

void ThreadTeam::help(int thread, uint32_t seen) {
  inside_loop = true;
  for (;;) {
    wait_until(loop_, [&] { return loop_.load(std::memory_order_acquire) != seen; });
    if (ending_) return;
    seen = loop_.load(std::memory_order_acquire);
    if (thread < team_.load(std::memory_order_acquire)) take_part(thread, seen);
  }
}

// Starts as many as the system gives; returns how many there are.
int ThreadTeam::start_helpers(int count) {
  if (static_cast<int>(helpers_.size()) >= count) return count;
  const SignalsBlocked blocked;  // a thread begins with its creator's mask
  try {
    while (static_cast<int>(helpers_.size()) < count)
      helpers_.emplace_back(&ThreadTeam::help, this, static_cast<int>(helpers_.size()) + 1, loop_.load());
  } catch (const std::system_error&) {
    // Fewer threads do the same work.
  }
  return static_cast<int>(helpers_.size());
}

void ThreadTeam::run(int64_t count, int team, threads_detail::Region region, const void* body) {
  team = std::min(team, start_helpers(team - 1) + 1);
  const uint32_t loop = loop_.load(std::memory_order_relaxed) + 1;
  const int shares = std::min(team, kMostShares);
  // The order matters: first no late thread can claim an item any more, then the loop changes, then there
  // are items again.
  for (int s = 0; s < std::max(shares, shares_in_use_.load(std::memory_order_relaxed)); ++s)
    shares_[static_cast<size_t>(s)].next.store(tagged(loop, UINT32_MAX));
  count_.store(count, std::memory_order_release);
  team_.store(team, std::memory_order_release);
  shares_in_use_.store(shares, std::memory_order_release);
  region_.store(region, std::memory_order_release);
  body_.store(body, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  error_ = nullptr;
  for (int s = 0; s < shares; ++s)
    shares_[static_cast<size_t>(s)].next.store(tagged(loop, static_cast<uint64_t>(s * count / shares)),
                                               std::memory_order_release);
  loop_.store(loop);
  loop_.notify_all();

  inside_loop = true;
  take_part(0, loop);
  wait_until(done_, [&] { return done_.load(std::memory_order_acquire) == static_cast<uint32_t>(count); });
  inside_loop = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

ThreadTeam::~ThreadTeam() {
  ending_ = true;
  loop_.fetch_add(1);
  loop_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

namespace {
thread_local std::unique_ptr<ThreadTeam> own_team;
}

ThreadTeam& ThreadTeam::of_this_thread() {
  // The child of a fork() has the caller's thread and no helpers. It leaves the team behind and starts a new
  // one.
  static const int watched = pthread_atfork(nullptr, nullptr, [] { static_cast<void>(own_team.release()); });
  static_cast<void>(watched);
  if (!own_team) own_team = std::make_unique<ThreadTeam>();
  return *own_team;
}

void threads_detail::run(int64_t count, int team, Region region, const void* body) {
  if (count <= 0) return;
  LONGSTRIDE_CHECK(count < UINT32_MAX, "a loop of {} items", count);
  team = static_cast<int>(std::min<int64_t>({team, threads(), count}));
  if (team > 1 && !inside_loop) return ThreadTeam::of_this_thread().run(count, team, region, body);
  LoopItems items;
  items.count_ = count;
  region(body, items);
}

int default_threads() {
  static const int count = [] {
    // OMP_NUM_THREADS may be a list, for nested loops; its first number is for the outermost.
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
      const std::string_view number(text);
      int wanted = 0;
      std::from_chars(number.data(), number.data() + number.size(), wanted);
      if (wanted > 0) return wanted;
    }
    return available_processors();
  }();
  return count;
}

void set_threads(int count) {
  LONGSTRIDE_CHECK(count >= 0, "threads = {}, must be 0 (all) or more", count);
  thread_limit = count;
}

int threads() { return thread_limit > 0 ? thread_limit : default_threads(); }

}  // namespace longstride
