// Processes that train one model together: ranks 0 .. size - 1. All of them make the same calls in the same
// order; a call returns once its part is done.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/base/tensor.h"

namespace longstride {

// What a rank sends to another, and what it awaits from one.
struct Outgoing {
  int rank;
  const void* data;
  int64_t bytes;
};
struct Incoming {
  int rank;
  void* data;
  int64_t bytes;
};

// A rank has ended or cannot be reached any more.
class RankLost : public Error {
 public:
  using Error::Error;
};

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // tensor = the sum of the ranks' tensors in the order of the ranks, ((t0 + t1) + t2) + ..: the same bits on
  // each of them and however they are connected. f32, contiguous, in memory of the CPU, of one count.
  virtual void sum(const Tensor& tensor) = 0;
  // The bytes of rank 0, on each of them.
  virtual void broadcast(void* data, int64_t bytes) = 0;
  // What each rank gives, in their order.
  virtual std::vector<std::string> gather(std::string_view mine) = 0;
  // Every piece leaves for its rank, and those of the others arrive, in the same order for each pair of ranks. All
  // ranks call it, also those without a piece. By gather(), unless there is a shorter way.
  virtual void exchange(std::span<const Outgoing> out, std::span<const Incoming> in);
  // Throws RankLost if a rank is known to be gone. Waits for nobody.
  virtual void look() {}
};

// A process by itself.
std::unique_ptr<Comm> alone();
Comm& no_others();  // one that lives as long as the process

// The ranks that this process was started with: by mpirun, or by srun with MPI; without either it is alone.
// Throws Error where a launcher started several and this build cannot join them. To be called once.
std::unique_ptr<Comm> join_ranks();

// Throws Error on every rank if one of them gives a message: that of the lowest such rank, with its number.
void agree(Comm& comm, std::string_view error);

}  // namespace longstride
