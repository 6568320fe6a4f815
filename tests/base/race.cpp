// Two threads of a loop write one number without a lock: what the thread sanitizer must find.
#include <chrono>
#include <cstdint>
#include <thread>

#include <fmt/format.h>

#include "longstride/base/threads.h"

int main() {
  longstride::set_threads(2);
  int64_t sum = 0;
  longstride::parallel_for(64, [&](int64_t i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // or one thread would do it all
    sum += i;
  });
  fmt::print("{}\n", sum);
  return 0;
}
