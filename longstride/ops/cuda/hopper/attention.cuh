// What the attention kernels for Hopper share: their arguments, how work is handed out and tiles are fetched
// by the producer's warp, and how results are written. docs/attention-on-hopper.md shows the pipeline.
#pragma once

#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/hopper/hopper.h"
#include "longstride/ops/cuda/hopper/instructions.cuh"
#include "longstride/ops/cuda/hopper/tensor_maps.h"

namespace longstride::cuda::hopper {

// The work of one launch: every item for every head of the group and sequence.
struct Work {
  const WorkItem* items = nullptr;
  int item_count = 0;
  const int* heads = nullptr;
  int head_count = 0;       // of the group
  int columns = 0;          // heads of the group times sequences
  int columns_at_once = 0;  // whose work is handed out together, so that the cache holds what they share
  int* counters = nullptr;  // two, zero before and after
  int parts = 1;            // tasks of one item: the pair, or each of its halves
  int first_column = 0;     // of those of all launches
  LONGSTRIDE_HOST_DEVICE int total() const { return item_count * columns * parts; }
};

// What a block of threads does next.
struct Task {
  int pair = 0, visits = 0, is_keys = 0;
  int half = 0;       // of the pair, where halves are tasks of their own
  int b = -1, h = 0;  // b < 0: nothing more
  int column = 0;     // of this launch
};

// Lane 0's, in all lanes of the warp.
__device__ inline Task of_lane_0(Task task) {
  task.pair = __shfl_sync(0xffffffffu, task.pair, 0);
  task.visits = __shfl_sync(0xffffffffu, task.visits, 0);
  task.is_keys = __shfl_sync(0xffffffffu, task.is_keys, 0);
  task.half = __shfl_sync(0xffffffffu, task.half, 0);
  task.b = __shfl_sync(0xffffffffu, task.b, 0);
  task.h = __shfl_sync(0xffffffffu, task.h, 0);
  task.column = __shfl_sync(0xffffffffu, task.column, 0);
  return task;
}

__device__ inline Task task_of(const Work& work, int number) {
  const int per_chunk = work.item_count * work.columns_at_once * work.parts, chunk = number / per_chunk;
  const int first = chunk * work.columns_at_once;
  const int columns = min(work.columns_at_once, work.columns - first), rest = number - chunk * per_chunk;
  const int index = rest / columns, column = first + rest - index * columns, item = index / work.parts;
  const int of_all = work.first_column + column;
  const int4 words = __ldg(reinterpret_cast<const int4*>(work.items) + item);
  return {words.x,
          words.y,
          words.z,
          index - item * work.parts,
          of_all / work.head_count,
          __ldg(work.heads + of_all % work.head_count),
          column};
}

// Hands out tasks to those who work side by side, `asker` of `askers`, one after the other; one warp asks.
class TaskQueue {
 public:
  // `ahead`: the number of the next task is drawn while this one is at work; else when it is asked for.
  __device__ TaskQueue(const Work& work, int asker, int askers, bool ahead = true)
      : work_(work), number_(asker), askers_(askers), ahead_(ahead) {}
  // All lanes get the same; they come by shuffles, so that the compiler knows and keeps them in registers
  // that a warp shares.
  __device__ Task next_of_warp() {
    Task task;
    if (threadIdx.x % kWarp == 0) task = next();
    return of_lane_0(task);
  }

 private:
  __device__ Task next() {
    if (number_ == kToDraw) number_ = askers_ + atomicAdd(work_.counters, 1);
    if (number_ >= work_.total()) {
      // The last to end leaves the counters as it found them.
      if (atomicAdd(work_.counters + 1, 1) == askers_ - 1) {
        work_.counters[0] = 0;
        work_.counters[1] = 0;
      }
      return {};
    }
    const Task task = task_of(work_, number_);
    number_ = ahead_ ? askers_ + atomicAdd(work_.counters, 1) : kToDraw;
    return task;
  }

  static constexpr int kToDraw = -1;
  const Work& work_;
  int number_;  // of the next task, in the first lane
  int askers_;
  bool ahead_;
};

// action(tile, pass, masks by half of the pair) for each visit of a pair. Unlike Visits it keeps little in
// registers: the producer has few and runs ahead. Queries of a causal pattern begin with the first keys they
// see and keys, `backwards`, with the last queries that see them: tasks that are at work together then fetch
// the same tiles at about the same time, and the cache serves all but the first.
template <class Action>
__device__ inline void for_visits(const Sweep& sweep, int pair, bool backwards, const Action& action) {
  const int begin = __ldg(sweep.offsets + pair), count = __ldg(sweep.offsets + pair + 1) - begin;
  for (int i = 0; i < count; ++i) {
    const int4* words =
        reinterpret_cast<const int4*>(sweep.runs + (backwards ? begin + count - 1 - i : begin + i));
    const int4 run = __ldg(words);
    const int pass = __ldg(&words[1].x);
    for (int t = run.x; t < run.y; ++t)
      action(backwards ? run.x + run.y - 1 - t : t, pass, make_int2(run.z, run.w));
  }
}

// The words of a mask for a thread's two rows, from its columns on; loaded before they are needed.
struct MaskWords {
  uint64_t rows[2];
};
template <bool kByQuery>
__device__ inline MaskWords mask_words(const TileMask* masks, int mask, int warp, int lane) {
  MaskWords words{};
  if (mask < 0) return words;
#pragma unroll
  for (int r = 0; r < 2; ++r) words.rows[r] = mask_word<kByQuery>(masks, mask, 16 * warp + 8 * r + lane / 4);
  return words;
}
// What the mask forbids becomes `value`.
__device__ inline void hide(float (&s)[kRows / 8][4], const MaskWords& words, int lane, float value) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint64_t word = words.rows[r] >> (2 * (lane % 4));
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if ((word >> (8 * j + e) & 1) == 0) s[j][2 * r + e] = value;
  }
}

// Starts copying a tile of one head, kWidth columns; in several boxes where they are low.
template <int kWidth>
__device__ inline void fetch_tile(uint32_t to, const TileMaps& maps, const BoxOrder& order, int tile, int b,
                                  int h, uint32_t barrier) {
  using Tile = Panels<kWidth>;
  const int lane = order.lane(tile), begin = order.begin_in_lane(tile, lane);
  for (int row = 0; row < kRows; row += order.box_rows) {
    const BoxPlace place = order.place(lane, begin + row);
    const CUtensorMap& map = place.in_tail ? maps.tail : maps.whole;
#pragma unroll
    for (int panel = 0; panel < Tile::kPanels; ++panel)
      copy_box(to + static_cast<uint32_t>(panel * Tile::kPanelBytes + row * Tile::kRowBytes), map,
               {panel * Tile::kColumns, place.inner, place.outer, h, b}, barrier);
  }
}

// Copies a tile of queries' numbers, in the background, two rows a lane; zeros where there is no query.
__device__ inline void copy_numbers(uint32_t to, const float2* from, const TilePlace& place, int lane) {
#pragma unroll
  for (int row = lane; row < kRows; row += kWarp) {
    uint32_t position;
    const bool present = place.find(row, position);
    copy8(to + static_cast<uint32_t>(8 * row), from + (present ? position : 0), present);
  }
}

// The numbers of two neighbouring queries.
__device__ inline float4 numbers_at(uint32_t numbers, int row) {
  float4 both;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(both.x), "=f"(both.y), "=f"(both.z), "=f"(both.w)
               : "r"(numbers + static_cast<uint32_t>(8 * row)));
  return both;
}

// Scores with keys down and queries across to weights.
__device__ inline void weigh_by_column(float (&s)[kRows / 8][4], uint32_t numbers, float scale, int lane) {
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    const float4 both = numbers_at(numbers, 8 * j + 2 * (lane % 4));
#pragma unroll
    for (int e = 0; e < 4; ++e) s[j][e] = exp2_fast(fmaf(s[j][e], scale, -(e % 2 == 0 ? both.x : both.z)));
  }
}

// ds = p (dp - delta), in place of dp, laid out likewise; p as it was rounded for its product, which leaves
// registers for one more warpgroup.
template <class T>
__device__ inline void differentiate_by_column(float (&dp)[kRows / 8][4], const uint32_t (&p)[kRows / 16][4],
                                               uint32_t numbers, int lane) {
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    const float4 both = numbers_at(numbers, 8 * j + 2 * (lane % 4));
#pragma unroll
    for (int e = 0; e < 4; ++e)
      dp[j][e] =
          unpack<T>(p[j / 2][2 * (j % 2) + e / 2], e % 2) * (dp[j][e] - (e % 2 == 0 ? both.y : both.w));
  }
}

// Where the 64 rows of a warpgroup's tile go.
template <class T>
struct WrittenTile {
  T* to;  // one head's rows
  int stride, width;
  TilePlace place;
  uint32_t room;  // the tile in shared memory that the warpgroup has to itself
  bool add;       // to what is there, times `kept`
};

// Brings rows that will be added to nearer.
template <int kWidth, class T>
__device__ inline void prefetch_tile(const WrittenTile<T>& tile, int warp, int lane) {
  uint32_t position;
  if (lane >= 16 || !tile.place.find(16 * warp + lane, position)) return;
  const T* row = tile.to + static_cast<int64_t>(position) * tile.stride;
#pragma unroll
  for (int column = 0; column < kWidth; column += 64)
    if (column < tile.width) asm volatile("prefetch.global.L2 [%0];" ::"l"(row + column));
}

// Writes what a warpgroup holds as D of a product: each thread's two rows times `factor`; `kept` counts where
// the result is added to an earlier one.
template <class T, int kWidth>
__device__ inline void write_tile(const float (&d)[kWidth / 8][4], const float (&factor)[2],
                                  const float (&kept)[2], const WrittenTile<T>& tile, int warp, int lane) {
  using Tile = Panels<kWidth>;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < kWidth / 8; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t packed = pack<T>(d[j][2 * half] * factor[half], d[j][2 * half + 1] * factor[half]);
      const uint32_t at =
          Tile::address(tile.room, 16 * warp + 8 * half + g, j) + static_cast<uint32_t>(4 * t);
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(packed) : "memory");
    }
  __syncwarp();
  constexpr int kChunks = kWidth / 8, kRowsAtOnce = kWarp / kChunks;
  constexpr int kSteps = 16 / kRowsAtOnce < 4 ? 16 / kRowsAtOnce : 4;  // whose rows are under way together
  const int chunk = lane % kChunks;
#pragma unroll
  for (int from = 0; from < 16; from += kSteps * kRowsAtOnce) {
    T* target[kSteps];
    uint4 before[kSteps];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int row = 16 * warp + from + step * kRowsAtOnce + lane / kChunks;
      uint32_t position;
      const bool present = tile.place.find(row, position) && 8 * chunk < tile.width;
      target[step] = present ? tile.to + static_cast<int64_t>(position) * tile.stride + 8 * chunk : nullptr;
      if (tile.add && present) before[step] = *reinterpret_cast<const uint4*>(target[step]);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int row = from + step * kRowsAtOnce + lane / kChunks;
      uint4 raw;
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                   : "r"(Tile::address(tile.room, 16 * warp + row, chunk))
                   : "memory");
      if (tile.add) {
        const float low = __shfl_sync(0xffffffffu, kept[0], (row & 7) * 4),
                    high = __shfl_sync(0xffffffffu, kept[1], (row & 7) * 4), times = row < 8 ? low : high;
        const T *fresh = reinterpret_cast<const T*>(&raw), *old = reinterpret_cast<const T*>(&before[step]);
        Eight sum;
#pragma unroll
        for (int e = 0; e < 8; ++e)
          sum.v[e] = (times == 0 ? 0.0f : to_float(old[e]) * times) + to_float(fresh[e]);
        if (target[step] != nullptr) store8(target[step], sum);
      } else if (target[step] != nullptr) {
        *reinterpret_cast<uint4*>(target[step]) = raw;
      }
    }
  }
  __syncwarp();
}

}  // namespace longstride::cuda::hopper
