#include "longstride/train/interrupt.h"

#include <csignal>

namespace longstride {

namespace {
volatile std::sig_atomic_t stop_requested = 0;

void note_signal(int number) {
  stop_requested = 1;
  std::signal(number, SIG_DFL);
}
}  // namespace

InterruptGuard::InterruptGuard() {
  stop_requested = 0;
  std::signal(SIGINT, note_signal);
  std::signal(SIGTERM, note_signal);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool InterruptGuard::requested() { return stop_requested != 0; }

}  // namespace longstride
