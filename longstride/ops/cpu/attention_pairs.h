// Sparse attention on tensors of bf16 with products of pairs, sum += a0 b0 + a1 b1, which is how AVX512-BF16
// and AMX multiply: the inputs of every product are bf16, sums are f32.
#pragma once

#include "longstride/ops/cpu/attention_tile.h"

namespace longstride::cpu {

// Whether tensors of this type are multiplied in this way on this machine. Otherwise attention widens rows
// of bf16 and computes in f32.
bool multiply_in_pairs(DType dtype);

// "AMX", "AVX512-BF16" or "" for none.
const char* pair_instruction_set();

// The working memory of a thread, for every kernel that may get tensors of these widths.
int64_t tile_scratch_bytes(int64_t qk_width, int64_t v_width);

// The working memory and the gatherer of a thread.
struct Worker {
  // `scratch` is u8 (threads, tile_scratch_bytes).
  Worker(const Tensor& scratch, int thread, DType dtype, int64_t qk_width, int64_t v_width);
  bool pairs;
  void* memory;
  TileScratch tile_scratch;
  RowGatherer gatherer;
};

// The tiles of attention_forward.cpp and attention_backward.cpp, which describe the arithmetic, in products
// of pairs.
void pair_forward_tile(const ForwardTask& task, const ForwardTask* next, void* memory, RowGatherer& gatherer);
void pair_backward_query_tile(const BackwardTask& task, const BackwardTask* next, void* memory,
                              RowGatherer& gatherer);
void pair_backward_key_tile(const BackwardTask& task, const BackwardTask* next, void* memory,
                            RowGatherer& gatherer);

}  // namespace longstride::cpu
