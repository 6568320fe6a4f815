#include "longstride/base/signals.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/interrupt.h"

namespace longstride {
namespace {

using namespace std::chrono_literals;

// Runs `body` in a child process and returns how that ended, in the form of waitpid. The value of `body` is
// the exit code.
int status_of_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// Waits until the signal thread has done its work, which takes no time on an idle machine.
template <class Done>
bool soon(const Done& done) {
  for (int i = 0; i < 5000 && !done(); ++i) std::this_thread::sleep_for(1ms);
  return done();
}

std::atomic<pthread_t> handled_by{};
std::atomic<int> handled{0};

TEST(Signals, HandlersRunOnTheSignalThread) {
  const int status = status_of_child([] {
    leave_signals_to_signal_thread();
    struct sigaction action {};
    action.sa_handler = [](int) {
      handled_by = pthread_self();
      ++handled;
    };
    sigaction(SIGALRM, &action, nullptr);
    for (int i = 1; i <= 20; ++i) {
      kill(getpid(), SIGALRM);
      if (!soon([&] { return handled >= i; })) return 1;
      if (pthread_equal(handled_by, pthread_self()) != 0) return 2;
    }
    return 0;
  });
  EXPECT_EQ(status, 0);
}

TEST(Signals, WithoutAGuardTheyEndTheProcessAsUsual) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGALRM}) {
    const int status = status_of_child([number] {
      std::signal(number, SIG_DFL);  // background jobs of a shell begin with SIGINT ignored
      leave_signals_to_signal_thread();
      kill(getpid(), number);
      std::this_thread::sleep_for(5s);
      return 0;
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == number) << number << ": " << status;
  }
}

TEST(Interrupt, SignalsAreNotedAndPairsOfThemCountOnce) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGXCPU}) {
    const auto send_pairs = [number] {
      const InterruptGuard guard;
      if (InterruptGuard::requested()) return 1;
      kill(getpid(), number);
      if (!soon(InterruptGuard::requested)) return 2;
      for (int again = 0; again < 5; ++again) kill(getpid(), number), std::this_thread::sleep_for(5ms);
      return InterruptGuard::signal_number() == number ? 0 : 3;
    };
    // Where a busy machine lets the child wait for a second, a signal of a pair is a second one and ends it, as
    // it should. Nothing is learnt then, and it is tried again.
    int status = -1;
    for (int attempt = 0; attempt < 20; ++attempt) {
      const auto begun = std::chrono::steady_clock::now();
      status = status_of_child(send_pairs);
      const bool late = std::chrono::steady_clock::now() - begun >= 1s;
      if (!late || !WIFSIGNALED(status) || WTERMSIG(status) != number) break;
    }
    EXPECT_EQ(status, 0) << number;
  }
}

TEST(Interrupt, ASecondOneASecondLaterEndsTheProcess) {
  const int status = status_of_child([] {
    const InterruptGuard guard;
    kill(getpid(), SIGINT);
    if (!soon(InterruptGuard::requested)) return 2;
    std::this_thread::sleep_for(1200ms);
    kill(getpid(), SIGTERM);
    std::this_thread::sleep_for(5s);
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
}

TEST(Interrupt, WhatWasIgnoredStaysIgnored) {
  for (const int number : {SIGTERM, SIGHUP, SIGXCPU, SIGUSR1}) {
    const int status = status_of_child([number] {
      std::signal(number, SIG_IGN);
      const InterruptGuard guard;
      kill(getpid(), number);
      std::this_thread::sleep_for(50ms);
      return InterruptGuard::requested() || InterruptGuard::take_save_request() ? 1 : 0;
    });
    EXPECT_EQ(status, 0) << number;
  }
}

// Presses Ctrl-C on a terminal whose foreground process has a guard, and sends it a SIGINT if the key had no
// effect. Returns the exit code: 0 if only the sent signal was noted, 1 if the key was, more if something
// went wrong.
int press_interrupt_key(void (*action_before)(int)) {
  const int status = status_of_child([action_before] {
    std::signal(SIGINT, action_before);
    const int keys = posix_openpt(O_RDWR | O_NOCTTY);
    if (keys < 0 || grantpt(keys) != 0 || unlockpt(keys) != 0 || setsid() < 0) return 2;
    if (open(ptsname(keys), O_RDWR) < 0) return 3;  // the first terminal of a session is its own
    const InterruptGuard guard;
    if (write(keys, "\x03", 1) != 1) return 4;
    if (action_before != SIG_IGN) return soon(InterruptGuard::requested) ? 1 : 6;
    std::this_thread::sleep_for(100ms);
    if (InterruptGuard::requested()) return 1;
    kill(getpid(), SIGINT);
    return soon(InterruptGuard::requested) ? 0 : 5;
  });
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Interrupt, KeysForTheJobInFrontDoNotEndOneThatIgnoresThem) {
  EXPECT_EQ(press_interrupt_key(SIG_DFL), 1);
  EXPECT_EQ(press_interrupt_key(SIG_IGN), 0);
}

TEST(Interrupt, UserSignalAsksForACheckpointOnly) {
  const int status = status_of_child([] {
    const InterruptGuard guard;
    kill(getpid(), SIGUSR1);
    bool asked = false;
    if (!soon([&] { return asked = asked || InterruptGuard::take_save_request(); })) return 1;
    return InterruptGuard::requested() || InterruptGuard::take_save_request() ? 2 : 0;
  });
  EXPECT_EQ(status, 0);
}

TEST(Interrupt, HandlersAndMaskAreThoseOfBeforeInTheEnd) {
  const auto handler = [](int) {};
  std::signal(SIGTERM, handler);
  { const InterruptGuard guard; }
  struct sigaction now {};
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_EQ(now.sa_handler, static_cast<void (*)(int)>(handler));
  std::signal(SIGTERM, SIG_DFL);
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  EXPECT_FALSE(sigismember(&blocked, SIGTERM));
}

}  // namespace
}  // namespace longstride
