// Keys and values of several sequences while sampling, and attention of one position to them. The cache
// holds only those that a later position may look at, in the rows that pattern/key_store.h gives them.
#pragma once

#include <cstdint>
#include <span>

#include "longstride/ops/run.h"
#include "longstride/pattern/key_store.h"

namespace longstride {

// The rows of one head: [first_row, first_row + store->rows).
struct HeadRows {
  const KeyStore* store = nullptr;  // in memory of the CPU
  int64_t first_row = 0;
};

// One layer's cache, contiguous. Keys and values are f32, bf16 or, on a GPU, f16; keys may be f32 beside
// narrower values.
struct KeyCache {
  Tensor keys;                      // (B, rows, D)
  Tensor values;                    // (B, rows, Dv)
  std::span<const HeadRows> heads;  // (H)
};

// Stores those of keys (N, H, D) and values (N, H, Dv) at positions [begin, begin + N) of `sequence` that
// later positions may look at. Positions before `begin` must be there already. Values are rounded to nearest
// even if the cache is narrower, and exact otherwise. Either the cache or the given tensors must be f32,
// unless both have the same dtype. Any strides, but the last is 1.
struct StoreKeys {
  const KeyCache& cache;
  int64_t sequence, begin;
  Tensor keys, values;

  const char* name() const { return "store_keys"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Attention of one position of each sequence: q (B, H, D) f32, o (B, H, Dv) f32 =. Sequence b is at
// positions[b], whose own key must be stored already; at -1 it rests, and its o is left as it is. Arithmetic
// and accumulation are f32, in an order that depends only on the sequence's own keys.
struct AttentionOne {
  const KeyCache& cache;
  std::span<const int64_t> positions;
  Tensor q;
  float scale;
  Tensor o;

  static constexpr bool kOnCpuOnly = true;
  const char* name() const { return "attention_one"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride
