// Inputs of blocks that wait for their recomputation in memory of the CPU, carried by copies beside the
// GPU's work. May be part of a recorded graph.
#pragma once

#include <memory>
#include <vector>

#include "longstride/device/backend.h"
#include "longstride/device/staging.h"

namespace longstride {

class OffloadedInputs {
 public:
  // Inputs on the GPU at a time: one that is read, one that is written, one on its way.
  static constexpr int64_t kResident = 3;
  // Pinned memory for inputs of `input_bytes` each: the last two stay on the GPU.
  static int64_t bytes(int64_t layers, int64_t input_bytes);

  // The input of layer l lives in streams[l % streams.size()].
  OffloadedInputs(int64_t layers, std::vector<Tensor> streams);

  // Before layer `layer` runs forward: its input, complete by now, leaves, and its output's place is free.
  void forward(int64_t layer);
  // Before layer `layer` is recomputed: its input is back; that of the layer before is on its way.
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
