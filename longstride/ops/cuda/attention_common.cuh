// What the attention kernels share: their arguments, the walk over visits, tiles in shared memory.
#pragma once

#include "longstride/ops/cuda/attention_args.h"
#include "longstride/ops/cuda/mma.cuh"

namespace longstride::cuda {

inline constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// The row of lse and delta that belongs to a sequence and head.
__device__ inline int64_t row_of_head(const AttentionArgs& a, int b, int h) {
  return (static_cast<int64_t>(b) * a.head_count + h) * a.n;
}

struct Visit {
  int tile = -1;  // negative: no more
  int pass = 0;
  int mask[2] = {kAbsent, kAbsent};
};

// Goes through the visits of a pair; fetches each run while the one before it is at work.
class Visits {
 public:
  __device__ Visits(const Sweep& sweep, int pair)
      : runs_(sweep.runs), next_(sweep.offsets[pair]), end_(sweep.offsets[pair + 1]) {
    fetch();
  }
  __device__ Visit next() {
    if (tile_ >= run_.end) {
      if (exhausted_) return {};
      run_ = fetched_;
      tile_ = run_.begin;
      fetch();
    }
    return {tile_++, run_.pass, {run_.mask[0], run_.mask[1]}};
  }

 private:
  __device__ void fetch() {
    exhausted_ = next_ >= end_;
    if (exhausted_) return;
    const int4* words = reinterpret_cast<const int4*>(runs_ + next_++);
    const int4 word = __ldg(words);
    fetched_ = {word.x, word.y, {word.z, word.w}, __ldg(&words[1].x)};
  }
  const VisitRun* runs_;
  int next_, end_;
  bool exhausted_ = false;
  VisitRun run_{}, fetched_{};
  int tile_ = 0;
};

// Rows of kWidth 16-bit elements in shared memory. The 16-byte chunks of a row change places from row to row,
// so that eight rows of one column lie in different banks.
template <int kWidth>
struct Tile {
  static constexpr int kChunks = kWidth / 8, kRowBytes = 2 * kWidth;
  static constexpr int bytes(int rows) { return rows * kRowBytes; }

  __device__ static uint32_t address(uint32_t base, int row, int chunk) {
    const int swap = kWidth >= 64 ? row & 7 : kWidth == 32 ? (row >> 1) & 3 : (row >> 2) & 1;
    return base + static_cast<uint32_t>(row * kRowBytes + ((chunk ^ swap) << 4));
  }
  // A (16 x 16): rows from `row` on, columns 16 * step on.
  __device__ static void load_a(uint32_t (&a)[4], uint32_t base, int row, int step, int lane) {
    load_matrices(a, address(base, row + (lane & 15), 2 * step + (lane >> 4)));
  }
  // Two B (16 x 8) side by side: columns are 16 rows of the tile from `row` on, rows its columns 16 * step
  // on.
  __device__ static void load_b(uint32_t (&b)[4], uint32_t base, int row, int step, int lane) {
    load_matrices(b, address(base, row + (lane & 7) + ((lane >> 4) << 3), 2 * step + ((lane >> 3) & 1)));
  }
  // Two B (16 x 8) side by side: rows are 16 rows of the tile from `row` on, columns its columns 8 * chunk
  // on.
  __device__ static void load_b_transposed(uint32_t (&b)[4], uint32_t base, int row, int chunk, int lane) {
    load_transposed(b, address(base, row + (lane & 15), chunk + (lane >> 4)));
  }
};

// The position of a row of two tiles of one order.
__device__ inline int position_in_pair(const TilePlace& low, const TilePlace& high, int row) {
  TilePlace place = low;
  if (row >= kTile) place.first = high.first, place.begin = high.begin, place.end = high.end;
  return place.position(row % kTile);
}

// Rows of one head in global memory, and where they go.
template <class T>
struct Copy {
  const T* from;
  int stride, width;
  uint32_t to;
};

// One thread's share of such a copy: the same 16-byte chunk of some rows.
template <class T, int kWidth>
class CopyOfChunk {
 public:
  __device__ CopyOfChunk(const Copy<T>& copy, int chunk)
      : from_(reinterpret_cast<const char*>(copy.from) + 16 * chunk),
        stride_(static_cast<uint32_t>(copy.stride) * sizeof(T)),
        to_(copy.to),
        chunk_(chunk),
        exists_(chunk < kWidth / 8 && 8 * chunk < copy.width),
        wanted_(chunk < kWidth / 8) {}
  // What is not present is not read, wherever its address may point.
  __device__ void start(int row, uint32_t position, bool present) const {
    if (wanted_)
      copy16(Tile<kWidth>::address(to_, row, chunk_), from_ + static_cast<uint64_t>(position) * stride_,
             present && exists_);
  }

 private:
  const char* from_;
  uint32_t stride_, to_;
  int chunk_;
  bool exists_, wanted_;
};

// Starts copying the same `kRows` rows (64, or 128 of a pair of tiles) of two tensors of one head; rows and
// columns that do not exist become zeros. kWidthV = 0: of the first alone.
template <class T, int kWidth, int kWidthV, int kRows, int kThreads>
__device__ inline void copy_tiles(const Copy<T>& a, const Copy<T>& v, const TilePlace& low,
                                  const TilePlace& high, int thread) {
  constexpr int kChunks = (kWidth > kWidthV ? kWidth : kWidthV) / 8, kRowsAtOnce = kThreads / kChunks;
  static_assert(kThreads % kChunks == 0 && kRows % kRowsAtOnce == 0);
  const int first = thread / kChunks, chunk = thread % kChunks;
  const CopyOfChunk<T, kWidth> of_a(a, chunk);
  const CopyOfChunk<T, kWidthV> of_v(v, chunk);
#pragma unroll
  for (int step = 0; step < kRows / kRowsAtOnce; ++step) {
    const int row = first + step * kRowsAtOnce;
    const bool in_high = kRows > kTile && step >= kRows / kRowsAtOnce / 2;
    uint32_t position;
    const bool present = (in_high ? high : low).find(row - (in_high ? kTile : 0), position);
    of_a.start(row, position, present);
    if constexpr (kWidthV > 0) of_v.start(row, position, present);
  }
}

// Where the rows of a warp go.
template <class T>
struct WrittenRows {
  T* to;  // one head's rows
  int stride, width;
  const int* positions;  // of the block's rows; those from n on are not written
  int n, first_row;      // first_row: of the warp
  uint32_t room;         // a tile in shared memory of which the warp has its own rows to itself
  bool add;              // to what is there, times `before` if that is not null (a factor for each row)
  const float* before;
};

// Writes rows that a warp holds as matrices C, kAtoms of 16 rows by kWidth columns, each row times its
// factor.
template <class T, int kWidth, int kAtoms>
__device__ inline void write_rows(const float (&c)[kAtoms][kWidth / 8][4], const float (&factor)[kAtoms][2],
                                  const WrittenRows<T>& rows, int lane) {
  const int g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t packed =
            pack<T>(c[atom][j][2 * half] * factor[atom][half], c[atom][j][2 * half + 1] * factor[atom][half]);
        const uint32_t at = Tile<kWidth>::address(rows.room, rows.first_row + 16 * atom + 8 * half + g, j) +
                            static_cast<uint32_t>(4 * t);
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(packed) : "memory");
      }
  __syncwarp();
  constexpr int kChunks = Tile<kWidth>::kChunks;
#pragma unroll
  for (int i = lane; i < 16 * kAtoms * kChunks; i += kWarp) {
    const int row = rows.first_row + i / kChunks, chunk = i % kChunks;
    const int position = rows.positions[row];
    if (position >= rows.n || 8 * chunk >= rows.width) continue;
    uint4 raw;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                 : "r"(Tile<kWidth>::address(rows.room, row, chunk))
                 : "memory");
    T* const target = rows.to + static_cast<int64_t>(position) * rows.stride + 8 * chunk;
    if (rows.add) {
      const T* fresh = reinterpret_cast<const T*>(&raw);
      Eight sum = load8(target);
      const float kept = rows.before != nullptr ? rows.before[row] : 1.0f;
#pragma unroll
      for (int e = 0; e < 8; ++e) sum.v[e] = (kept == 0 ? 0.0f : sum.v[e] * kept) + to_float(fresh[e]);
      store8(target, sum);
    } else {
      *reinterpret_cast<uint4*>(target) = raw;
    }
  }
}

// c = the product of kAtoms matrices A of 16 rows, from `row_a` on, with kRowsB rows of a tile, from `row_b`
// on, over their kWidth columns: the scores of 16 * kAtoms rows with kRowsB others.
template <class T, int kWidth, int kAtoms, int kRowsB>
__device__ inline void row_products(float (&c)[kAtoms][kRowsB / 8][4], uint32_t tile_a, int row_a,
                                    uint32_t tile_b, int row_b, int lane) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    uint32_t a[kAtoms][4];
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom)
      Tile<kWidth>::load_a(a[atom], tile_a, row_a + 16 * atom, step, lane);
#pragma unroll
    for (int j = 0; j < kRowsB / 8; j += 2) {
      uint32_t b[4];
      Tile<kWidth>::load_b(b, tile_b, row_b + 8 * j, step, lane);
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) {
        if (step == 0) {
          multiply_first<T>(c[atom][j], a[atom], b[0], b[1]);
          multiply_first<T>(c[atom][j + 1], a[atom], b[2], b[3]);
        } else {
          multiply<T>(c[atom][j], a[atom], b[0], b[1]);
          multiply<T>(c[atom][j + 1], a[atom], b[2], b[3]);
        }
      }
    }
  }
}

// c += the product of what row_products() laid out, rounded to T, with kRows rows of a tile from `row_b` on.
template <class T, int kWidth, int kAtoms, int kRows>
__device__ inline void add_weighted_rows(float (&c)[kAtoms][kWidth / 8][4],
                                         const float (&weights)[kAtoms][kRows / 8][4], uint32_t tile_b,
                                         int row_b, int lane) {
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step) {
    uint32_t a[kAtoms][4];
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom)
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const auto& w = weights[atom][2 * step + side];
        a[atom][2 * side] = pack<T>(w[0], w[1]);
        a[atom][2 * side + 1] = pack<T>(w[2], w[3]);
      }
#pragma unroll
    for (int j = 0; j < kWidth / 8; j += 2) {
      uint32_t b[4];
      Tile<kWidth>::load_b_transposed(b, tile_b, row_b + 16 * step, j, lane);
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) {
        multiply<T>(c[atom][j], a[atom], b[0], b[1]);
        multiply<T>(c[atom][j + 1], a[atom], b[2], b[3]);
      }
    }
  }
}

// A row's log-sum-exp over an earlier sweep's keys and over this one's, and the factors of the two results.
struct MergedSum {
  float log_sum, of_earlier, of_fresh;
};

// Either is -infinity where its sweep had no key for the row, and NaN where a score was.
__device__ inline MergedSum merge_sums(float earlier, float fresh) {
  const float high = fmaxf(earlier, fresh);
  float both = fresh;
  if (high != -INFINITY) both = high + log1pf(expf(fminf(earlier, fresh) - high));
  if (isnan(earlier) || isnan(fresh)) both = earlier + fresh;
  return {both, earlier == -INFINITY ? 0.0f : expf(earlier - both),
          fresh == -INFINITY ? 0.0f : expf(fresh - both)};
}

// The word of a mask for row `row` of a half tile.
template <bool kByQuery>
__device__ inline uint64_t mask_word(const TileMask* masks, int mask, int row) {
  return __ldg(reinterpret_cast<const unsigned long long*>(
      (kByQuery ? masks[mask].rows.data() : masks[mask].columns.data()) + row));
}

// Launches by (pair of tiles, head of the group, sequence); pairs with the most work come last in causal
// patterns and are started first.
__device__ inline int pair_of_block(bool last_first) {
  return last_first ? static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)
                    : static_cast<int>(blockIdx.x);
}

// Kernels on tensor cores: 16-bit elements, rows of 16-byte chunks, widths up to 128.
void forward_by_tiles(const AttentionArgs& args, DType dtype, int heads, int batch);
void backward_queries_by_tiles(const AttentionArgs& args, DType dtype, int heads, int batch);
void backward_keys_by_tiles(const AttentionArgs& args, DType dtype, int heads, int batch);

// Whether this GPU has the shared memory that a block of those kernels needs for these widths.
bool forward_tiles_fit(DType dtype, int width, int width_v);
bool backward_queries_tiles_fit(DType dtype, int width, int width_v);
bool backward_keys_tiles_fit(DType dtype, int width, int width_v);

// The same in f32 without tensor cores: elements of any type, rows however they lie, widths up to 128.
void forward_by_plain_tiles(const AttentionArgs& args, DType dtype, int heads, int batch);
void backward_queries_by_plain_tiles(const AttentionArgs& args, DType dtype, int heads, int batch);
void backward_keys_by_plain_tiles(const AttentionArgs& args, DType dtype, int heads, int batch);
bool plain_tiles_fit(int width, int width_v, bool backward);

// Kernels for everything else, a warp a row, in f32.
void forward_by_rows(const AttentionArgs& args, DType dtype, int heads, int batch);
void backward_queries_by_rows(const AttentionArgs& args, DType dtype, int heads, int batch);
void backward_keys_by_rows(const AttentionArgs& args, DType dtype, int heads, int batch);

}  // namespace longstride::cuda
