#include "longstride/ops/cpu/attention_pairs.h"
namespace longstride::cpu {
bool multiply_in_pairs(DType) { return false; }
const char* pair_instruction_set() { return ""; }
int64_t tile_scratch_bytes(int64_t q, int64_t v) { return (TileScratch::bytes(q, v) + 63) / 64 * 64; }
void pair_forward_tile(const ForwardTask&, const ForwardTask*, void*) {}
void pair_backward_query_tile(const BackwardTask&, const BackwardTask*, void*) {}
void pair_backward_key_tile(const BackwardTask&, const BackwardTask*, void*) {}
}  // namespace longstride::cpu
