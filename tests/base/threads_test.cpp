#include "longstride/base/threads.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

namespace longstride {
namespace {

// Sets the number of threads while it lives.
class WithThreads {
 public:
  explicit WithThreads(int count) { set_threads(count); }
  ~WithThreads() { set_threads(0); }
};

TEST(Threads, EveryItemRunsOnce) {
  for (const int team : {1, 2, 3, 5, 8}) {
    const WithThreads limit(team);
    for (const int64_t count : {0, 1, 2, 3, 7, 8, 9, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
      parallel_for(count, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
      for (const std::atomic<int>& n : runs) ASSERT_EQ(n, 1) << team << " threads, " << count << " items";
    }
  }
}

// Threads that are late for one loop meet the next loops, which have other bodies and sizes.
TEST(Threads, LoopsInQuickSuccessionDoNotMix) {
  const WithThreads limit(4);
  for (int64_t loop = 0; loop < 20000; ++loop) {
    const int64_t count = 2 + loop % 13;
    std::atomic<int64_t> sum{0};
    parallel_for(count, [&, loop](int64_t i) { sum += loop * 100 + i; });
    ASSERT_EQ(sum, count * loop * 100 + count * (count - 1) / 2) << "loop " << loop;
  }
}

TEST(Threads, ThreadNumbersAreDistinctAndBelowTheTeam) {
  const WithThreads limit(5);
  std::vector<std::atomic<int>> inside(3);
  parallel_region(200, 3, [&](LoopItems& items) {
    ASSERT_LT(items.thread(), 3);
    EXPECT_EQ(++inside[static_cast<size_t>(items.thread())], 1);
    for (int64_t i; items.next(i);) std::this_thread::yield();
    --inside[static_cast<size_t>(items.thread())];
  });
}

TEST(Threads, AnExceptionComesOutAfterAllOthersHaveEnded) {
  const WithThreads limit(3);
  std::atomic<int> running{0};
  const auto loop = [&] {
    parallel_for(100, [&](int64_t i) {
      ++running;
      std::this_thread::yield();
      --running;
      if (i == 40) throw std::runtime_error("item 40");
    });
  };
  for (int again = 0; again < 20; ++again) {
    EXPECT_THROW(loop(), std::runtime_error);
    EXPECT_EQ(running, 0);
    int64_t sum = 0;
    parallel_for(1, [&](int64_t) { sum = 7; });
    EXPECT_EQ(sum, 7);
  }
}

TEST(Threads, ALoopInALoopRunsInItsThread) {
  const WithThreads limit(4);
  std::atomic<int64_t> sum{0};
  parallel_for(8, [&](int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    parallel_for(8, [&](int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      ++sum;
    });
  });
  EXPECT_EQ(sum, 64);
}

TEST(Threads, CallersDoNotMeet) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      set_threads(3);
      for (int loop = 0; loop < 500; ++loop) parallel_for(10, [&](int64_t i) { sum += i; });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 500 * 45);
}

TEST(Threads, AChildOfForkHasThreadsOfItsOwn) {
  const WithThreads limit(3);
  std::atomic<int64_t> sum{0};
  parallel_for(10, [&](int64_t i) { sum += i; });
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    sum = 0;
    parallel_for(10, [&](int64_t i) { sum += i; });
    _exit(sum == 45 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Threads, SignalsAreBlockedInHelpers) {
  const WithThreads limit(4);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> looked{0};
  for (int loop = 0; loop < 100; ++loop)
    parallel_for(4, [&](int64_t) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (std::this_thread::get_id() == caller) return;
      sigset_t blocked;
      pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
      for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGPROF, SIGUSR1})
        EXPECT_TRUE(sigismember(&blocked, number)) << number;
      EXPECT_FALSE(sigismember(&blocked, SIGSEGV));
      ++looked;
    });
  EXPECT_GT(looked, 0);
}

}  // namespace
}  // namespace longstride
