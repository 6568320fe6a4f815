#include "longstride/train/interrupt.h"

#include <csignal>

namespace longstride {

namespace {
volatile std::sig_atomic_t noted_signal = 0;

void note_signal(int number) {
  noted_signal = number;
  std::signal(number, SIG_DFL);
}
}  // namespace

InterruptGuard::InterruptGuard() {
  noted_signal = 0;
  std::signal(SIGINT, note_signal);
  std::signal(SIGTERM, note_signal);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool InterruptGuard::requested() { return noted_signal != 0; }

int InterruptGuard::signal_number() { return noted_signal; }

}  // namespace longstride
