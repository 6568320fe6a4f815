// Attention for Hopper: what the dispatcher sees of this folder. Implemented by the kernels here, which are
// compiled for sm_90a alone, or by no_hopper.cpp in a build without that target.
#pragma once

#include "longstride/ops/cuda/attention_args.h"

namespace longstride::cuda::hopper {

// Whether this build has the kernels and the present GPU runs them.
bool usable();

// For 16-bit elements, widths up to 128 and rows of whole 16-byte chunks. False where a tensor's strides do
// not suit the tensor memory accelerator; then nothing has been started.
struct ForwardCall {
  AttentionArgs args;  // its sweep is filled in here
  DType dtype = DType::bf16;
  int batch = 0;
  int* counters = nullptr;  // AttentionLists::counters()
};
bool forward(const Round& round, const ForwardCall& call, const HeadGroup& group);

struct BackwardCall {
  AttentionArgs args;
  DType dtype = DType::bf16;
  int batch = 0;
  int* counters = nullptr;
  const float2* numbers = nullptr;             // (B, H, N): lse * log2 e, delta
  bool add_queries = false, add_keys = false;  // to what an earlier round left
};
bool backward(const Round& round, const BackwardCall& call, const HeadGroup& group);
// For a closed group, by its `closed` round; needs no numbers.
bool backward_closed(const Round& round, const BackwardCall& call, const HeadGroup& group);

}  // namespace longstride::cuda::hopper
