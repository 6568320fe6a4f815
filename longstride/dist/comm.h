// Processes that train one model together: the place for MPI and NCCL. Training runs in one process so far;
// single.cpp stands in for the collectives.
#pragma once

#include <memory>

#include "longstride/base/tensor.h"

namespace longstride {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;  // in [0, size())
  virtual int size() const = 0;
  // tensor = sum of the ranks' tensors, f32, contiguous, the same shape on each. All ranks call it in the
  // same order.
  virtual void sum(const Tensor& tensor) = 0;
};

// The processes that this one was started with.
std::unique_ptr<Comm> make_comm();

}  // namespace longstride
