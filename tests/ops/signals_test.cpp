// Signals while a program that uses the library computes. During products of oneDNN the stack pointer points
// into the heap, where a handler would overwrite memory.
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstring>
#include <vector>

#include <sys/time.h>

#include "longstride/ops/linear.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

std::atomic<int> alarms{0};

std::vector<float> products() {
  constexpr int64_t kRows = 200, kIn = 150, kOut = 170;
  const std::vector<double> values = normal_doubles(1, kRows * kIn), weights = normal_doubles(2, kIn * kOut);
  std::vector<float> x(values.begin(), values.end()), w(weights.begin(), weights.end()), y(kRows * kOut, NAN);
  for (int again = 0; again < 200; ++again)
    run({}, LinearForward{matrix(x, kRows, kIn), matrix(w, kOut, kIn), {}, matrix(y, kRows, kOut)});
  return y;
}

TEST(Signals, HandlersDoNotDisturbProducts) {
  const std::vector<float> undisturbed = products();
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { ++alarms; };
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, &before);
  const itimerval often{{0, 500}, {0, 500}}, never{};
  setitimer(ITIMER_REAL, &often, nullptr);
  const std::vector<float> disturbed = products();
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  EXPECT_GT(alarms, 5);
  EXPECT_EQ(std::memcmp(undisturbed.data(), disturbed.data(), undisturbed.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace longstride
