// The common parts of the forward and backward tiles of attention in pairs: memory, masks, the exponential,
// and products of scores.
#pragma once

#include <limits>

#include "longstride/ops/cpu/attention_pairs_layout.h"

#if LONGSTRIDE_PAIRS

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES(LONGSTRIDE_PAIR_TARGET)

namespace longstride::cpu {

// The memory of a thread. All tiles are kT * padded width of bf16, or the same in f32.
struct PairScratch {
  char* next;
  int64_t wide;  // the larger padded width

  PairScratch(void* memory, int64_t qk_width, int64_t v_width)
      : next(static_cast<char*>(memory)), wide(std::max(pair_width(qk_width), pair_width(v_width))) {
    next += 4 * RowGatherer::kBuffers * kT * wide * 2;  // the gatherer's
  }
  static int64_t bytes(int64_t qk_width, int64_t v_width) {
    const int64_t wide = std::max(pair_width(qk_width), pair_width(v_width));
    return kT * wide * (4 * RowGatherer::kBuffers * 2 + 5 * 2 + 2 * 4) + kT * kT * (2 * 4 + 2 * 2) +
           5 * kT * 4;
  }
  static void lay_out(RowGatherer& gatherer, void* memory, int64_t qk_width, int64_t v_width) {
    const int64_t wide = std::max(pair_width(qk_width), pair_width(v_width));
    for (const int s : {stream::kQueries, stream::kKeys, stream::kValues, stream::kGradients}) {
      const int64_t width = s == stream::kQueries || s == stream::kKeys ? qk_width : v_width;
      gatherer.set_stream(s, static_cast<char*>(memory) + s * RowGatherer::kBuffers * kT * wide * 2,
                          DType::bf16, pair_width(width) * 2, RowGatherer::Place::as_it_lies);
    }
  }
  template <class T>
  T* take(int64_t count) {
    T* here = reinterpret_cast<T*>(next);
    next += count * sizeof(T);
    return here;
  }
};

// 2^x for x <= 0 to about the last place of f32; 0 for -inf. Minimax polynomial on [-1/2, 1/2].
inline __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 y = _mm512_set1_ps(1.327647129e-3f);
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(9.675540961e-3f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.550713092e-2f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(2.402212024e-1f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(6.931469440e-1f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, n);
}

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Which queries may look at each key of a visit; a tile without a mask allows all of its own.
class Allowed {
 public:
  Allowed(const TileMask* mask, int64_t queries, int64_t keys)
      : columns_(whole_), all_(mask == nullptr && queries == kT && keys == kT) {
    if (all_) {
      for (uint32_t& blocks : used.of_keys) blocks = (1u << (kT / kBlock)) - 1;
      return;
    }
    if (mask) {
      columns_ = mask->columns.data();
    } else {
      std::fill_n(whole_, kT, 0);
      std::fill_n(whole_, keys, queries == 64 ? ~uint64_t{0} : (uint64_t{1} << queries) - 1);
    }
    for (int64_t key = 0; key < keys; key += kBlock) {
      const __m512i all =
          _mm512_or_si512(_mm512_loadu_si512(columns_ + key), _mm512_loadu_si512(columns_ + key + 8));
      const __m256i half = _mm256_or_si256(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
      const __m128i quarter = _mm_or_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
      const __m128i bits = _mm_or_si128(quarter, _mm_unpackhi_epi64(quarter, quarter));
      used.of_keys[key / kBlock] = _mm_test_epi16_mask(bits, bits) & 0xf;
    }
  }
  Allowed(const Allowed&) = delete;
  // Every pair of 64 queries and 64 keys.
  bool all() const { return all_; }
  __mmask16 of(int64_t key, int block) const {
    return static_cast<__mmask16>(columns_[key] >> (block * kBlock));
  }
  bool block(int64_t key, int block) const { return used.of_keys[key / kBlock] >> block & 1; }
  UsedBlocks used;

 private:
  const uint64_t* columns_;
  bool all_;
  uint64_t whole_[kT];
};

// scores^T (keys, queries), with rows `row` apart, = rows (keys, width), from `begin` on, times turned
// (width / 2, kHalf). Only for used blocks.
inline void multiply_scores(Rows rows, int64_t begin, int64_t width, const uint32_t* turned, int key_blocks,
                            int query_blocks, const UsedBlocks& used, float* scores, int64_t row) {
  multiply_pairs({.a = rows.at(begin),
                  .a_row = rows.row,
                  .a_upper = begin == 0 ? rows.half[1] : nullptr,
                  .b = turned,
                  .b_row = kHalf,
                  .c = scores,
                  .c_row = row,
                  .rows = key_blocks,
                  .columns = query_blocks,
                  .depth = depths_of(width),
                  .onto = false,
                  .skip = Skip::results,
                  .used = &used});
}

// Turned results (width, kHalf) = or += turned rows (width, keys) times pairs of keys (keys / 2, kHalf).
// Only for used blocks.
inline void add_turned(const uint16_t* columns, int64_t width, const uint32_t* pairs, int64_t keys,
                       int query_blocks, const UsedBlocks& used, bool onto, float* turned) {
  multiply_pairs({.a = columns,
                  .a_row = kT,
                  .b = pairs,
                  .b_row = kHalf,
                  .c = turned,
                  .c_row = kHalf,
                  .rows = blocks_of(width),
                  .columns = query_blocks,
                  .depth = depths_of(keys),
                  .onto = onto,
                  .skip = Skip::depth_of_columns,
                  .used = &used});
}

}  // namespace longstride::cpu

HWY_POP_ATTRIBUTES

#endif  // LONGSTRIDE_PAIRS
