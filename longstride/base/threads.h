// The threads that share the work of the CPU backend.
//
// A thread that waits, for work or for others to finish theirs, looks for it for some microseconds and then
// sleeps. So it never keeps a core from other processes. Work is claimed piece by piece. Each thread first
// takes pieces of its own share, which keeps data in its cache from one loop to the next, and then what
// others have left. A thread that the system does not let run therefore delays the others only by the piece
// that it has claimed. OpenMP's runtime is not used, because how its threads wait is decided outside the
// program, before it starts, and by default they spin. docs/performance.md has the comparison.
#pragma once

#include <cstdint>
#include <type_traits>

namespace longstride {

// Threads that loops of the calling thread may use, itself included; 0 restores the default.
void set_threads(int count);
int threads();
// OMP_NUM_THREADS where it is set; else the processors that the process may run on (its affinity), or the
// CPU quota of its control group (a container's limit) rounded up, whichever is less.
int default_threads();

// What one thread does of a loop: for (int64_t i; items.next(i);) ...
class LoopItems;

namespace threads_detail {
using Region = void (*)(const void* body, LoopItems& items);
void run(int64_t count, int team, Region region, const void* body);
}  // namespace threads_detail

class LoopItems {
 public:
  // Takes the next item of this thread; false if there is none left.
  bool next(int64_t& item);
  // Which of the team's threads this is: 0, the caller, to the team's size - 1.
  int thread() const { return thread_; }

 private:
  friend class ThreadTeam;
  friend void threads_detail::run(int64_t, int, threads_detail::Region, const void*);
  class ThreadTeam* team_ = nullptr;  // null: all items are this thread's
  uint32_t loop_ = 0;
  int thread_ = 0, share_ = 0, shares_ = 1;
  int64_t count_ = 0, next_ = 0;
  int64_t claimed_ = 0;
  int64_t held_ = -1;  // claimed before the region was entered
};

// Calls body(items) in up to `team` threads, at most threads(). Each thread runs the items that it claims
// out of [0, count). Returns when all items have run. A thread that finds no item left does not call body.
// An exception in one thread lets the others finish their items and is then thrown again here. A loop inside
// a loop runs in the thread that it is in. Signals are blocked in all threads but the caller's.
template <class Body>
void parallel_region(int64_t count, int team, const Body& body) {
  threads_detail::run(
      count, team, [](const void* erased, LoopItems& items) { (*static_cast<const Body*>(erased))(items); },
      &body);
}

// Calls body(i) for all i in [0, count), in up to `team` threads, or threads().
template <class Body>
void parallel_for(int64_t count, int team, const Body& body) {
  parallel_region(count, team, [&body](LoopItems& items) {
    for (int64_t i; items.next(i);) body(i);
  });
}
template <class Body>
void parallel_for(int64_t count, const Body& body) {
  parallel_for(count, threads(), body);
}

}  // namespace longstride
