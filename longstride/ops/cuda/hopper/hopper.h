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
// By a closed round; needs no numbers.
bool backward_closed(const Round& round, const BackwardCall& call, const HeadGroup& group);

// What backward_ordered() sums dq in: tiles of queries in f32 for so many of (sequence, head) at a time, and
// whose turn it is at each tile.
struct Sums {
  float* tiles = nullptr;
  int* turns = nullptr;
  int columns = 0;
};
// By a round of HeadGroup::ordered, in five products.
bool backward_ordered(const Round& round, const BackwardCall& call, const HeadGroup& group, const Sums& sums);
// Whether it is faster than backward() for lists like these of so many (sequence, head).
bool pays_in_order(const ListLengths& lengths, int columns);
// Whether it serves elements and widths like these.
bool serves_in_order(DType dtype, int width, int width_v);
// Bytes of the sums of one tile of queries.
constexpr int64_t bytes_of_sum(int width) { return int64_t{4} * kTile * (width <= 64 ? 64 : 128); }

}  // namespace longstride::cuda::hopper
