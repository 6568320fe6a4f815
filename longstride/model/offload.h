// Inputs of blocks that wait for their recomputation in the CPU's memory. Copies carry them while the GPU
// computes. May be part of a recorded graph.
#pragma once

#include <memory>
#include <vector>

#include "longstride/device/backend.h"
#include "longstride/device/staging.h"

namespace longstride {

class OffloadedInputs {
 public:
  // Inputs that are on the GPU at the same time: one is read, one is written, one is being copied.
  static constexpr int64_t kResident = 3;
  // Pinned memory for inputs of `input_bytes` each: the last two stay on the GPU.
  static int64_t bytes(int64_t layers, int64_t input_bytes);

  // The input of layer l lives in streams[l % streams.size()].
  OffloadedInputs(int64_t layers, std::vector<Tensor> streams);

  // Before layer `layer` runs forward: its input, which is complete by now, starts to leave, and the place
  // of its output is free.
  void forward(int64_t layer);
  // Before layer `layer` is recomputed: its input is back, and that of the layer before is on its way.
  void backward(int64_t layer);

 private:
  bool leaves(int64_t layer) const { return layer >= 0 && layer + kResident <= layers_; }
  void* place(int64_t layer) const;

  int64_t layers_;
  std::vector<Tensor> streams_;
  PinnedBuffer waiting_;
  std::unique_ptr<SideStream> side_;
};

}  // namespace longstride
