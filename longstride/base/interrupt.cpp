#include "longstride/base/interrupt.h"

#include <atomic>
#include <cstdint>

#include <pthread.h>
#include <time.h>

#include "longstride/base/signals.h"

namespace longstride {

namespace {

// Lock-free atomics are what a handler may touch.
std::atomic<int> noted_signal{0};
std::atomic<int64_t> noted_at{0};  // nanoseconds
std::atomic<bool> save_requested{false};
std::atomic<bool> interrupt_was_ignored{false};

int64_t now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// A shell starts its background jobs with SIGINT ignored, so that Ctrl-C ends only the job in the
// foreground. But a process that sends SIGINT to such a job means it.
bool is_key_for_others(int number, const siginfo_t* sent) {
  return number == SIGINT && interrupt_was_ignored && sent != nullptr && sent->si_code == SI_KERNEL;
}

void note_signal(int number, siginfo_t* sent, void*) {
  if (is_key_for_others(number, sent)) return;
  if (number == SIGUSR1) {
    save_requested = true;
    return;
  }
  int none = 0;
  if (noted_signal.compare_exchange_strong(none, number)) {
    noted_at = now();
    return;
  }
  const int64_t first = noted_at;
  if (first == 0 || now() - first < 1'000'000'000) return;
  // The signal is blocked while its handler runs. It ends the process when this returns.
  std::signal(number, SIG_DFL);
  std::raise(number);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  start_signal_thread();
  noted_signal = 0, noted_at = 0, save_requested = false;
  sigset_t noted;
  sigemptyset(&noted);
  for (const int number : kSignals) sigaddset(&noted, number);
  pthread_sigmask(SIG_BLOCK, &noted, &mask_before_);

  struct sigaction action {};
  action.sa_sigaction = note_signal;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  action.sa_mask = noted;  // one handler at a time
  for (size_t i = 0; i < kSignals.size(); ++i) {
    const int number = kSignals[i];
    sigaction(number, nullptr, &actions_before_[i]);
    const bool ignored = actions_before_[i].sa_handler == SIG_IGN;
    if (number == SIGINT) interrupt_was_ignored = ignored;
    if (ignored && number != SIGINT) continue;
    sigaction(number, &action, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &actions_before_[i], nullptr);
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

bool InterruptGuard::requested() { return noted_signal != 0; }

int InterruptGuard::signal_number() { return noted_signal; }

bool InterruptGuard::take_save_request() { return save_requested.exchange(false); }

}  // namespace longstride
