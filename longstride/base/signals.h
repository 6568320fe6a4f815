// Keeps signals away from threads that compute. During matrix products of oneDNN the stack pointer points
// into the heap for a while; a handler that ran on such a thread would write its frame over other memory.
#pragma once

#include <csignal>

namespace longstride {

// While it lives, blocks in this thread every signal that another thread can take as well. Signals that an
// instruction of the thread itself raises (SIGSEGV, SIGBUS, SIGFPE, ...) are not blocked.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// Starts a thread that does nothing but take the signals that all others block; once in the process. Throws
// Error if the system gives no thread.
void start_signal_thread();

// For the beginning of a program. The calling thread, and all that it starts later, block signals for good;
// the thread of start_signal_thread() takes them.
void leave_signals_to_signal_thread();

}  // namespace longstride
