// What every attention kernel is given.
#pragma once

#include <vector_types.h>

#include "longstride/ops/cuda/attention_lists.h"

namespace longstride::cuda {

// A tensor (B, N, H, width), by strides in elements.
struct Rows {
  void* data = nullptr;
  int64_t batch = 0, head = 0;
  int position = 0, width = 0;

  template <class T>
  LONGSTRIDE_HOST_DEVICE T* of(int b, int h) const {
    return static_cast<T*>(data) + b * batch + h * head;
  }
};

struct AttentionArgs {
  Sweep sweep;
  const TileMask* masks = nullptr;
  const int* heads = nullptr;
  int head_count = 0;  // of all heads
  int n = 0;
  float scale = 1;
  Rows q, k, v, o, d_o, dq, dk, dv;
  float* lse = nullptr;    // (B, H, N)
  float* delta = nullptr;  // (B, H, N)
  bool add = false;        // to what an earlier sweep left: merge in the forward, += in the backward
};

}  // namespace longstride::cuda
