// Attention on bf16 with products of pairs. The algorithm is that of attention_forward.cpp and
// attention_backward.cpp. Gradients always take two sweeps, so results are the same bits for any number of
// threads. What differs is the layout, which the instructions dictate:
//
//   c (rows, columns) f32 += a (rows, depth) b (depth, columns),  a as rows of bf16, b as rows of pairs:
//   element (i, j) of b's row i holds b(2 i, j) and b(2 i + 1, j).
//
// Keys are the rows of scores, s^T = K q^T and dp^T = V dO^T. So K and V are used as they are in memory, and
// q and dO are turned once for each query tile: turned(q) (depth / 2, queries) in pairs is a transposition
// of 32-bit words. Then
//   o^T += V^T p^T,  dq^T += K^T ds^T   with p^T, ds^T as pairs of keys, V^T and K^T turned in each visit;
//   dv += p^T dO,    dk += ds^T q       with p^T, ds^T as rows, dO and q as pairs of queries.
//
// Rows are padded to kPairWidth with zeros. Blocks of kBlock * kBlock scores that a mask leaves empty are
// skipped. Scores are computed for half a tile at a time, and turned rows are in two halves of kHalf
// columns, one after the other. So the data of a step stay in the first cache.
#include "longstride/ops/cpu/attention_pairs.h"

#include "longstride/ops/cpu/attention_pairs_tile.h"

namespace longstride::cpu {

#if !LONGSTRIDE_PAIRS
// Never called, because multiply_in_pairs() is false here.
void pair_forward_tile(const ForwardTask&, const ForwardTask*, void*, RowGatherer&) {}
void pair_backward_query_tile(const BackwardTask&, const BackwardTask*, void*, RowGatherer&) {}
void pair_backward_key_tile(const BackwardTask&, const BackwardTask*, void*, RowGatherer&) {}
#endif

bool multiply_in_pairs(DType dtype) { return dtype == DType::bf16 && pair_engine() != PairEngine::none; }

const char* pair_instruction_set() {
  switch (pair_engine()) {
    case PairEngine::none:
      return "";
    case PairEngine::avx512_bf16:
      return "AVX512-BF16";
    case PairEngine::amx:
      return "AMX";
  }
  return "";
}

int64_t tile_scratch_bytes(int64_t qk_width, int64_t v_width) {
  int64_t bytes = TileScratch::bytes(qk_width, v_width);
#if LONGSTRIDE_PAIRS
  bytes = std::max(bytes, PairScratch::bytes(qk_width, v_width));
#endif
  return (bytes + 63) / 64 * 64;
}

Worker::Worker(const Tensor& scratch, int thread, DType dtype, int64_t qk_width, int64_t v_width)
    : pairs(multiply_in_pairs(dtype)),
      memory(scratch.as<uint8_t>() + thread * scratch.stride[0]),
      tile_scratch(memory, qk_width, v_width) {
  if (!pairs) tile_scratch.lay_out(gatherer, qk_width, v_width);
#if LONGSTRIDE_PAIRS
  if (pairs) PairScratch::lay_out(gatherer, memory, qk_width, v_width);
#endif
}

}  // namespace longstride::cpu
