// Products of pairs of bf16 in blocks of 16 by 16 results, by AMX or AVX512-BF16.
#pragma once

#include <cstdint>

#include "longstride/ops/cpu/attention_tile.h"

// The compiler knows the instructions. Whether the machine has them is decided at run time.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define LONGSTRIDE_PAIRS 1
#define LONGSTRIDE_PAIR_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"
#else
#define LONGSTRIDE_PAIRS 0
#endif

namespace longstride::cpu {

inline constexpr int64_t kBlock = 16;      // rows and columns of a block of results
inline constexpr int64_t kPairWidth = 32;  // depth that one step of a block takes

// The blocks of a tile (keys, queries) that have an allowed pair.
struct UsedBlocks {
  uint32_t of_keys[kAttentionTile / kBlock] = {};  // bit j: block j of queries

  // The blocks from these on, counted from there.
  UsedBlocks from(int block_of_keys, int block_of_queries) const {
    UsedBlocks rest;
    for (int i = block_of_keys; i < kAttentionTile / kBlock; ++i)
      rest.of_keys[i - block_of_keys] = of_keys[i] >> block_of_queries;
    return rest;
  }
};

enum class Skip {
  nothing,
  results,          // blocks of c (keys, queries) that are not used stay as they were
  depth_of_rows,    // rows are keys and depth is queries; unused depth takes no part
  depth_of_columns  // columns are queries and depth is keys
};

// c (rows, columns) f32 = or += a (rows, depth) b (depth, columns), all in blocks.
struct PairProduct {
  const uint16_t* a;  // bf16
  int64_t a_row;
  const uint16_t* a_upper = nullptr;  // row 32 of a, if it is not where a_row puts it
  const uint32_t* b;                  // pairs of bf16 along depth
  int64_t b_row;
  float* c;
  int64_t c_row;
  int rows, columns, depth;
  bool onto;
  Skip skip = Skip::nothing;
  const UsedBlocks* used = nullptr;
};

enum class PairEngine { none, avx512_bf16, amx };
// What this machine has and may use (device/instructions.h).
PairEngine pair_engine();

// AMX's registers must get their shapes before products, and be released afterwards, in the same thread.
class PairRegisters {
 public:
  PairRegisters();
  ~PairRegisters();
  PairRegisters(const PairRegisters&) = delete;
  PairRegisters& operator=(const PairRegisters&) = delete;
};

void multiply_pairs(const PairProduct& product);

}  // namespace longstride::cpu
