#include "longstride/base/signals.h"

#include <mutex>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <unistd.h>

#include "longstride/base/check.h"

namespace longstride {

namespace {

const sigset_t& signals_of_others() {
  static const sigset_t set = [] {
    sigset_t all;
    sigfillset(&all);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&all, own);
    return all;
  }();
  return set;
}

}  // namespace

SignalsBlocked::SignalsBlocked() { pthread_sigmask(SIG_BLOCK, &signals_of_others(), &before_); }
SignalsBlocked::~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

void start_signal_thread() {
  static std::mutex mutex;
  static pid_t started_by = 0;  // a child of fork() has no such thread
  const std::lock_guard lock(mutex);
  if (started_by == getpid()) return;
  try {
    // A thread begins with its creator's mask, and must take no signal before it has its own.
    const SignalsBlocked blocked;
    std::thread([] {
      sigset_t none;
      sigemptyset(&none);
      pthread_sigmask(SIG_SETMASK, &none, nullptr);
      for (;;) pause();
    }).detach();
  } catch (const std::system_error& error) {
    fail("cannot start a thread for signals: {}", error.what());
  }
  started_by = getpid();
}

void leave_signals_to_signal_thread() {
  pthread_sigmask(SIG_BLOCK, &signals_of_others(), nullptr);
  start_signal_thread();
}

}  // namespace longstride
