// SIGINT and SIGTERM as a question that a long loop asks between steps.
#pragma once

namespace longstride {

// While one lives, the first SIGINT or SIGTERM is only noted; a second one ends the process as usual.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool requested();
  static int signal_number();  // that was noted; 0: none
};

}  // namespace longstride
