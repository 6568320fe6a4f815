// Requests to end, as a question that a long loop asks between steps.
#pragma once

#include <array>
#include <csignal>

namespace longstride {

// While a guard lives, SIGINT, SIGTERM, SIGHUP and SIGXCPU are only noted. A second signal ends the process
// as usual, but only if it comes at least a second after the first: some senders send twice in a row, as
// timeout does to a process and to its group. Signals that were ignored before stay ignored, as nohup wants
// it, with one exception: SIGINT is noted when a process sends it, and ignored only when it comes from the
// keyboard. SIGUSR1 asks for a checkpoint and lets the work go on.
//
// The handlers run neither on the thread that made the guard nor on those that compute. One guard at a
// time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  static bool requested();
  static int signal_number();  // that was noted; 0: none
  // True once for each time that a checkpoint was asked for.
  static bool take_save_request();

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGUSR1};
  std::array<struct sigaction, kSignals.size()> actions_before_;
  sigset_t mask_before_;
};

}  // namespace longstride
