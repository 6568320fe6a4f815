// Signals kept away from threads that compute. The matrix products of oneDNN let the stack pointer point into
// the heap for a while; a handler that ran on such a thread would write its frame over other memory.
#pragma once

#include <csignal>

namespace longstride {

// Blocks every signal that another thread can take as well, in this thread, while it lives. Signals that an
// instruction of the thread itself raises (SIGSEGV, SIGBUS, SIGFPE, ...) stay as they are.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// Starts, once in the process, a thread that does nothing but take signals, so that there is one to take
// those that all others block. Throws Error if the system gives no thread.
void start_signal_thread();

// For the beginning of a program: the calling thread, and all that it starts later, block signals for good,
// and the thread of start_signal_thread() takes them.
void leave_signals_to_signal_thread();

}  // namespace longstride
