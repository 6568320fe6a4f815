// The products of a step of Newton-Schulz (longstride/ops/muon.h) for Hopper, X of 16-bit elements:
//
//   gram:    A = X X^T where X is wide, X^T X where it is tall
//   square:  S = b A + c A^2
//   apply:   Y = a X + S X, or a X + X S
//
// A launch computes one of them for all matrices of all batches: tiles of 128 x 128 are handed out in a fixed
// order to blocks of threads that stay, one a multiprocessor. In each a warp fetches blocks of 64 x 64 by the
// TMA into a ring, and two warpgroups compute tiles in turns: while one multiplies, the other rounds and stores.
//
// A and S are symmetric. Tiles below the diagonal are mirror images, stored by whoever computes the tile above,
// and of a tile on the diagonal three quarters are computed.
//
// What is added to a product, b A or a X, is itself a tile of the left or the right factor. A tile's sum begins
// with the blocks that hold it, so that it is read where it lies. In f32 it is the first term of the sum.
//
// A stage of the ring has a barrier for each warpgroup, and a block of a tile is announced to the one that computes
// it. A warpgroup passes over the other's blocks without a wait. With one barrier for both, it could fall two phases
// behind and take an earlier phase, of the same parity, for the one it waits for.
//
// Deterministic: a tile's sum has one order, whoever computes it. Sums are f32 and rounded once.
#pragma once

#include "longstride/ops/cuda/hopper/instructions.cuh"
#include "longstride/ops/cuda/hopper/newton_schulz.h"

namespace longstride::cuda::hopper::newton {

enum class Step : uint8_t { gram, square, apply };

constexpr int kSide = 2 * kRows;                 // of a tile
constexpr int kBlockBytes = Panels<64>::kBytes;  // 64 x 64
constexpr int kPairBytes = 2 * kBlockBytes;      // of a factor in a stage, and of results on their way
constexpr int kComputing = 2, kSlots = 4;        // warpgroups that compute; tasks known to them
constexpr int kBlockThreads = (kComputing + 1) * kWarpgroup;
// Whose turn the task of a slot is.
constexpr __device__ int turn_of(int slot) { return slot % kComputing; }
static_assert(kSlots % kComputing == 0);

// The matrices of one shape.
struct Group {
  CUtensorMap left, right, out;
  int end = 0;         // of its tiles among those of all groups
  int per_matrix = 0;  // tiles to compute
  int side = 0;        // tiles of a row of the result
  int blocks = 0;      // of 64 that are summed over
  int transposed = 0;  // gram: X is tall; apply: X is wide, the right factor
};

struct Args {
  Group groups[kMostBatches];
  int group_count = 0, total = 0;
  int* counter = nullptr;  // of tiles handed out, those that blocks begin with left out
  float added = 0;         // the sum begins with this times what is added
  float scale = 1;         // of the sum
  bool backwards = false;  // the order of tiles
};

// A tile. Negative group: nothing more.
struct Task {
  int group = -1, matrix = 0, i = 0, j = 0;
};

template <class T_, Step kStep_>
struct Kind {
  using T = T_;
  static constexpr Step kStep = kStep_;
  static constexpr bool kSymmetric = kStep != Step::apply, kAdded = kStep != Step::gram;
  // By measurement: with four stages Muon's update of a model of 95M parameters takes a seventh longer, and as
  // many as six leave too little room for results.
  static constexpr int kStages = 5, kStageBytes = 2 * kPairBytes;
  static constexpr int kUnits = 2;  // pairs of blocks on their way to memory, of each warpgroup
  static constexpr int kUnitsBytes = kUnits * kPairBytes;
  static constexpr int kControl = 512;
  static constexpr int kSharedBytes =
      kAlignment + kStages * kStageBytes + kComputing * kUnitsBytes + kControl;
  static_assert(kSharedBytes <= kSharedOfChip);
};

template <class Kind>
struct Control {
  uint64_t full[kComputing][Kind::kStages], empty[Kind::kStages];
  uint64_t task_full[kSlots], task_empty[kSlots];
  Task tasks[kSlots];
};

// Where the parts of shared memory lie.
template <class Kind>
struct Places {
  uint32_t base;
  Control<Kind>* control;
  __device__ uint32_t stage(int i) const { return base + static_cast<uint32_t>(i * Kind::kStageBytes); }
  __device__ uint32_t units(int of) const {
    return stage(Kind::kStages) + static_cast<uint32_t>(of * Kind::kUnitsBytes);
  }
};

// ---- tasks ----

template <class Kind>
__device__ Task task_of(const Args& a, int number) {
  if (number >= a.total) return {};
  if (a.backwards) number = a.total - 1 - number;
  Task task{0, 0, 0, 0};
  int begin = 0;
  while (number >= a.groups[task.group].end) begin = a.groups[task.group++].end;
  const Group& group = a.groups[task.group];
  task.matrix = (number - begin) / group.per_matrix;
  int rest = number - begin - task.matrix * group.per_matrix, length = group.side;
  if constexpr (Kind::kSymmetric) {
    while (rest >= length) rest -= length--, ++task.i;
    task.j = task.i + rest;
  } else {
    task.i = rest / length, task.j = rest - task.i * length;
  }
  return task;
}

// Whether blocks of the left or the right factor have what is summed over as rows.
template <class Kind>
__device__ bool left_across(const Group& group) {
  return Kind::kStep == Step::gram && group.transposed != 0;
}
template <class Kind>
__device__ bool right_across(const Group& group) {
  return Kind::kStep != Step::square && group.transposed != 0;
}
// What is added lies in the right factor.
template <class Kind>
__device__ bool adds_right(const Group& group) {
  return Kind::kStep == Step::apply && group.transposed != 0;
}

// ---- fetching ----

// The two blocks of a factor: `first` is where the tile begins, `k` where those summed over do.
__device__ inline void fetch_pair(uint32_t to, const CUtensorMap& map, bool across, int first, int k,
                                  int matrix, uint32_t barrier) {
  for (int half = 0; half < 2; ++half) {
    const int at = first + kRows * half;
    copy_box(to + static_cast<uint32_t>(half * kBlockBytes), map, {across ? at : k, across ? k : at, matrix},
             barrier);
  }
}

// The thread that fetches.
template <class Kind>
__device__ void produce(const Args& a, const Places<Kind>& places) {
  Control<Kind>& control = *places.control;
  Ring<Kind::kStages> ring;
  Ring<kSlots> slots;
  for (int number = static_cast<int>(blockIdx.x);; slots.advance()) {
    const Task task = task_of<Kind>(a, number);
    wait(shared_address(&control.task_empty[slots.stage]), slots.parity ^ 1);
    control.tasks[slots.stage] = task;
    arrive(shared_address(&control.task_full[slots.stage]));
    if (task.group < 0) return;
    number = static_cast<int>(gridDim.x) + atomicAdd(a.counter, 1);  // known when it is needed
    const Group& group = a.groups[task.group];
    const bool from_left = left_across<Kind>(group), from_right = right_across<Kind>(group);
    const bool diagonal = Kind::kSymmetric && task.i == task.j;
    int block = Kind::kAdded ? 2 * (adds_right<Kind>(group) ? task.i : task.j) : 0;
    for (int left = group.blocks; left > 0; --left) {
      const uint32_t full = shared_address(&control.full[turn_of(slots.stage)][ring.stage]),
                     stage = places.stage(ring.stage);
      wait(shared_address(&control.empty[ring.stage]), ring.parity ^ 1);
      arrive_expecting(full, diagonal ? kPairBytes : Kind::kStageBytes);
      fetch_pair(stage, group.left, from_left, kSide * task.i, kRows * block, task.matrix, full);
      if (!diagonal)
        fetch_pair(stage + kPairBytes, group.right, from_right, kSide * task.j, kRows * block, task.matrix,
                   full);
      ring.advance();
      if (++block == group.blocks) block = 0;
    }
  }
}

// ---- computing ----

// A warpgroup that computes every other tile of its block of threads.
template <class Kind>
struct Computing {
  using T = typename Kind::T;
  // Of a tile, as it lies in the registers of a warpgroup: two halves of 64 rows each.
  using Sum = float[2][kSide / 8][4];
  const Args& a;
  const Places<Kind>& places;
  int own, warp, lane;
  Ring<Kind::kStages> ring;  // of both warpgroups' blocks
  uint32_t parities = 0;     // a bit a stage, of the barriers of its own
  int unit = 0;

  __device__ Control<Kind>& control() const { return *places.control; }
  __device__ void wait_for(int stage) const {
    wait(shared_address(&control().full[own][stage]), parities >> stage & 1);
  }
  __device__ void release(int stage) const {
    __syncwarp();
    arrive_of_warp(shared_address(&control().empty[stage]), lane);
  }

  // sum = a.added times the tile that is added, from the first two stages; see produce(). The left factor's
  // blocks there lie side by side in it, the right one's below each other.
  __device__ void begin_with_added(Sum& sum, bool from_right) const {
    Ring<Kind::kStages> next = ring;
    next.advance();
    wait_for(ring.stage), wait_for(next.stage);
    const uint32_t stages[2] = {places.stage(ring.stage), places.stage(next.stage)};
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int panel = 0; panel < 2; ++panel) {
        const uint32_t of_left = stages[panel] + static_cast<uint32_t>(half * kBlockBytes),
                       of_right = stages[half] + static_cast<uint32_t>(kPairBytes + panel * kBlockBytes);
        uint32_t block[kRows / 16][4];
        load_rows<64>(block, from_right ? of_right : of_left, warp, lane);
#pragma unroll
        for (int step = 0; step < kRows / 16; ++step)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float* const to = sum[half][8 * panel + 2 * step + e / 2] + 2 * (e % 2);
            to[0] = a.added * unpack<T>(block[step][e], 0), to[1] = a.added * unpack<T>(block[step][e], 1);
          }
      }
  }

  // sum += the products of the tile's blocks, which lie kLeft and kRight `across`; without what is added, =.
  template <bool kLeft, bool kRight, bool kDiagonal>
  __device__ void add_products(Sum& sum, int blocks) {
    float quarter[kDiagonal ? kRows / 8 : 1][4];  // the lower right one
    if constexpr (kDiagonal) {
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) quarter[j][e] = sum[1][kRows / 8 + j][e];
      pin(quarter);
    }
    int before = 0;
    for (int n = 0; n < blocks; ++n) {
      wait_for(ring.stage);
      const uint32_t left = uniform(places.stage(ring.stage)), right = left + (kDiagonal ? 0 : kPairBytes);
      begin_products();
#pragma unroll
      for (int step = 0; step < kRows / 16; ++step) {
        const auto left_half = [&](int half) {
          const uint32_t block = left + static_cast<uint32_t>(half * kBlockBytes);
          return kLeft ? Panels<64>::rows(block, step) : Panels<64>::columns(block, step);
        };
        const auto right_from = [&](int half) {
          const uint32_t block = right + static_cast<uint32_t>(half * kBlockBytes);
          return kRight ? Panels<64>::rows(block, step) : Panels<64>::columns(block, step);
        };
        product<T, kRight, kLeft>(sum[0], left_half(0), right_from(0), 1);
        if constexpr (kDiagonal)
          product<T, kRight, kLeft>(quarter, left_half(1), right_from(1), 1);
        else
          product<T, kRight, kLeft>(sum[1], left_half(1), right_from(0), 1);
      }
      end_products();
      if (n > 0) {
        wait_for_products<1>();
        release(before);
      }
      before = ring.stage;
      parities ^= 1u << ring.stage;
      ring.advance();
    }
    wait_for_products<0>();
    release(before);
    if constexpr (kDiagonal) {
      pin(sum[0]), pin(quarter);
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[1][kRows / 8 + j][e] = quarter[j][e];
    } else {
      pin(sum[0]), pin(sum[1]);
    }
  }

  // ---- results ----

  using Block = uint32_t[kRows / 16][4];  // a warp's 16 rows of 64 columns, as left factors

  __device__ void round(Block& block, const Sum& sum, int half, int panel) const {
#pragma unroll
    for (int step = 0; step < kRows / 16; ++step)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float* const from = sum[half][8 * panel + 2 * step + e / 2] + 2 * (e % 2);
        block[step][e] = Kind::kStep == Step::square ? pack<T>(a.scale * from[0], a.scale * from[1])
                                                     : pack<T>(from[0], from[1]);
      }
  }
  __device__ bool leads() const { return warp == 0 && lane == 0; }
  // Room for two blocks on their way to memory.
  __device__ uint32_t begin_unit() const {
    if (leads()) wait_until_read<Kind::kUnits - 1>();
    sync_some(1 + own, kWarpgroup);
    return places.units(own) + static_cast<uint32_t>(unit * kPairBytes);
  }
  // They begin at (row, column), the second `down` or beside the first.
  __device__ void end_unit(uint32_t from, const CUtensorMap& out, int column, int row, bool down,
                           int matrix) {
    publish_to_async();
    sync_some(1 + own, kWarpgroup);
    if (leads()) {
      store_box(out, from, {column, row, matrix});
      store_box(out, from + kBlockBytes, {down ? column : column + kRows, down ? row + kRows : row, matrix});
      end_stores();
    }
    if (++unit == Kind::kUnits) unit = 0;
  }

  template <bool kDiagonal>
  __device__ void write(const Sum& sum, const CUtensorMap& out, const Task& task) {
    const int row = kSide * task.i, column = kSide * task.j;
    Block blocks[2], upper_right;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int panel = 0; panel < 2; ++panel) round(blocks[panel], sum, half, panel);
      const uint32_t room = begin_unit();
      if (kDiagonal && half == 1)
        store_columns(upper_right, room, warp, lane);
      else
        store_rows(blocks[0], room, warp, lane);
      store_rows(blocks[1], room + kBlockBytes, warp, lane);
      end_unit(room, out, column, row + kRows * half, false, task.matrix);
      if constexpr (!Kind::kSymmetric) continue;
      if constexpr (kDiagonal) {
#pragma unroll
        for (int step = 0; step < kRows / 16; ++step)
#pragma unroll
          for (int e = 0; e < 4; ++e) upper_right[step][e] = blocks[1][step][e];
        continue;
      }
      const uint32_t mirrored = begin_unit();
      store_columns(blocks[0], mirrored, warp, lane);
      store_columns(blocks[1], mirrored + kBlockBytes, warp, lane);
      end_unit(mirrored, out, row + kRows * half, column, true, task.matrix);
    }
  }

  // A tile whose factors' blocks lie kLeft and kRight `across`.
  template <bool kLeft, bool kRight, bool kDiagonal>
  __device__ void compute(const Task& task, const Group& group) {
    Sum sum = {};
    if constexpr (Kind::kAdded) begin_with_added(sum, kRight);
    pin(sum[0]), pin(sum[1]);  // written before products are under way
    add_products<kLeft, kRight, kDiagonal>(sum, group.blocks);
    write<kDiagonal>(sum, group.out, task);
  }
  __device__ void compute(const Task& task, const Group& group) {
    const bool across = __any_sync(0xffffffffu, group.transposed != 0);
    constexpr bool kGram = Kind::kStep == Step::gram;
    const auto choose = [&]<bool kDiagonal>() {
      if constexpr (Kind::kStep == Step::square)
        compute<false, false, kDiagonal>(task, group);
      else if (across)
        compute<kGram, true, kDiagonal>(task, group);
      else
        compute<false, false, kDiagonal>(task, group);
    };
    if constexpr (!Kind::kSymmetric)
      choose.template operator()<false>();
    else if (__any_sync(0xffffffffu, task.i == task.j))
      choose.template operator()<true>();
    else
      choose.template operator()<false>();
  }

  __device__ void run() {
    Ring<kSlots> slots;
    for (;;) {
      wait(shared_address(&control().task_full[slots.stage]), slots.parity);
      const Task task = control().tasks[slots.stage];
      const bool ours = turn_of(slots.stage) == own;
      __syncwarp();
      arrive_of_warp(shared_address(&control().task_empty[slots.stage]), lane);
      slots.advance();
      if (task.group < 0) break;
      const Group& group = a.groups[task.group];
      if (ours)
        compute(task, group);
      else
        ring.advance(group.blocks);
    }
    if (leads()) wait_until_read<0>();
  }
};

template <class Kind>
__global__ void __launch_bounds__(kBlockThreads, 1) newton_schulz_kernel(const __grid_constant__ Args a) {
  extern __shared__ unsigned char raw[];
  Places<Kind> places;
  places.base = aligned(shared_address(raw));
  places.control = reinterpret_cast<Control<Kind>*>(raw + (places.units(kComputing) - shared_address(raw)));
  static_assert(sizeof(Control<Kind>) <= Kind::kControl);
  if (threadIdx.x == 0) {
    Control<Kind>& control = *places.control;
    for (int i = 0; i < Kind::kStages; ++i) {
      for (int of = 0; of < kComputing; ++of) init_barrier(shared_address(&control.full[of][i]), 1);
      init_barrier(shared_address(&control.empty[i]), kArrivalsOfWarp * 4);
    }
    for (int i = 0; i < kSlots; ++i) {
      init_barrier(shared_address(&control.task_full[i]), 1);
      init_barrier(shared_address(&control.task_empty[i]), kArrivalsOfWarp * 4 * kComputing);
    }
    publish_barriers();
  }
  __syncthreads();
  let_next_begin();
  wait_for_last();
  const int warp = uniform(static_cast<int>(threadIdx.x / kWarp)), group = warp / 4;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  if (group == kComputing) {
    give_registers<40>();
    if (warp % 4 == 0 && lane == 0) produce<Kind>(a, places);
  } else {
    take_registers<232>();
    Computing<Kind>{a, places, group, warp % 4, lane, {}}.run();
  }
}

}  // namespace longstride::cuda::hopper::newton
