// Sparse attention backward for Hopper, in two roles that one launch hands out side by side:
//
//   queries' role:  owns queries, visits keys:     dq = scale sum_k ds k
//   keys' role:     owns keys, visits queries:     dv = sum_q p d_o,  dk = scale sum_q ds q
//   with p = exp(scale q.k - lse[q]),  ds = p (d_o[q].v[k] - delta[q])
//
// Each role computes weights for itself (seven products where five would do), in exchange for which nothing
// but results leaves the registers, and no two blocks of threads add to the same rows: the same bits from run
// to run. Both roles have the same form. A warpgroup owns 64 rows of two tensors (q and d_o, or k and v) and
// multiplies them with 64 visited rows of the two others, which gives scores and gradients of weights with
// the own rows down; these, rounded, are left factors of the products that are summed up.
//
// Warpgroups do not share what they visit: three of them (two for wide values) at different tasks keep the
// tensor cores busier than two that take the same tiles together, and the cache has bandwidth to spare.
#include "longstride/ops/cuda/hopper/attention.cuh"
#include "longstride/ops/cuda/hopper/attention_launch.cuh"

namespace longstride::cuda::hopper {

namespace {

// One role's view of the tensors.
struct RoleArgs {
  Sweep sweep;
  BoxOrder rows, others[kMostBoxPasses];
  TileMaps own, own_v;                                          // q and d_o, or k and v
  TileMaps visited[kMostBoxPasses], visited_v[kMostBoxPasses];  // k and v, or q and d_o
  bool add = false;
};

struct BackwardArgs {
  AttentionArgs base;
  Work work;
  const float2* numbers = nullptr;  // (B, H, N): lse * log2 e, delta
  RoleArgs queries, keys;
};

// kLanes pairs of a warp that fetches and a warpgroup that computes work side by side in a block of threads,
// each at tasks of its own.
template <class T_, int kWidth_, int kWidthV_>
struct Backward {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_;
  static constexpr int kLanes = kWidthV <= 64 ? 3 : 2, kAskers = kLanes;  // by registers
  static constexpr int kThreads = (kLanes + 1) * kWarpgroup, kBlocks = 1;
  static constexpr int kBytes = Panels<kWidth>::kBytes, kBytesV = Panels<kWidthV>::kBytes;
  static constexpr int kTilesBytes = kBytes + kBytesV;  // a tile of each of two tensors: own rows, or visited
  static constexpr int kSlots = kWidth <= 64 ? 2 : 1;   // tasks whose own rows are there
  static constexpr int kNumbersBytes = kRows * 8;
  static constexpr int kControl = 1024;  // of a lane
  static constexpr int kRoom = (kSharedOfChip - kAlignment) / kLanes / kAlignment * kAlignment;
  static constexpr int kMost = (kRoom - kSlots * kTilesBytes - kControl) / (kTilesBytes + kNumbersBytes);
  static constexpr int kStages = kMost < kMostStages ? kMost : kMostStages;
  static_assert(kStages >= 2);
  static constexpr int kSharedBytes = kAlignment + kLanes * kRoom;
};

template <class Kind>
struct BackwardControl {
  int masks[Kind::kStages];
  uint64_t full[Kind::kStages], empty[Kind::kStages];
  uint64_t own_full[Kind::kSlots], own_empty[Kind::kSlots];
  Task tasks[Kind::kSlots];
};

// Where the parts of a lane's shared memory lie.
template <class Kind>
struct Places {
  uint32_t base;
  BackwardControl<Kind>* control;
  __device__ uint32_t own(int slot) const { return base + static_cast<uint32_t>(slot * Kind::kTilesBytes); }
  __device__ uint32_t stage(int i) const { return own(Kind::kSlots + i); }
  __device__ uint32_t numbers(int i) const {
    return own(Kind::kSlots + Kind::kStages) + static_cast<uint32_t>(i * Kind::kNumbersBytes);
  }
};

// The warp that fetches: its first lane starts the TMA, all copy the numbers of visited queries.
template <class Kind>
__device__ void produce(const BackwardArgs& a, const Places<Kind>& places, int number) {
  const int lane = threadIdx.x % kWarp;
  BackwardControl<Kind>& control = *places.control;
  // Neighbours in the queue are alike: they go to different multiprocessors.
  TaskQueue queue(a.work, number * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x),
                  static_cast<int>(gridDim.x) * Kind::kLanes);
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;
  for (;;) {
    Task task = queue.next_of_warp();
    const uint32_t own_full = shared_address(&control.own_full[slots.stage]);
    wait(shared_address(&control.own_empty[slots.stage]), slots.parity ^ 1);
    if (task.b < 0) {
      if (lane == 0) {
        control.tasks[slots.stage] = task;
        arrive(own_full);
      }
      return;
    }
    const RoleArgs& role = task.is_keys != 0 ? a.keys : a.queries;
    const int own_tile = 2 * task.pair + task.half;
    task.visits = 0;
    for_visits(role.sweep, task.pair, false, [&](int, int, const int2& masks) {
      if ((task.half == 0 ? masks.x : masks.y) != kAbsent) ++task.visits;
    });
    if (lane == 0) {
      control.tasks[slots.stage] = task;
      const bool exists = own_tile < role.sweep.rows.tiles;
      arrive_expecting(own_full, exists ? Kind::kTilesBytes : 0);
      if (exists) {
        const uint32_t own = places.own(slots.stage);
        fetch_tile<Kind::kWidth>(own, role.own, role.rows, own_tile, task.b, task.h, own_full);
        fetch_tile<Kind::kWidthV>(own + Kind::kBytes, role.own_v, role.rows, own_tile, task.b, task.h,
                                  own_full);
      }
    }
    const float2* numbers = a.numbers + row_of_head(a.base, task.b, task.h);
    for_visits(role.sweep, task.pair, task.is_keys != 0, [&](int tile, int pass, const int2& masks) {
      const int mask = task.half == 0 ? masks.x : masks.y;
      if (mask == kAbsent) return;
      const uint32_t full = shared_address(&control.full[ring.stage]);
      const uint32_t stage = places.stage(ring.stage);
      wait(shared_address(&control.empty[ring.stage]), ring.parity ^ 1);
      if (lane == 0) {
        control.masks[ring.stage] = mask;
        arrive_expecting(full, Kind::kTilesBytes);
        fetch_tile<Kind::kWidth>(stage, role.visited[pass], role.others[pass], tile, task.b, task.h, full);
        fetch_tile<Kind::kWidthV>(stage + Kind::kBytes, role.visited_v[pass], role.others[pass], tile, task.b,
                                  task.h, full);
      }
      if (task.is_keys != 0)
        copy_numbers(places.numbers(ring.stage), numbers, role.sweep.others[pass].place(tile), lane);
      arrive_after_copies(full);
      __syncwarp();
      ring.advance();
    });
    slots.advance();
  }
}

template <class Kind>
struct Consumer {
  const BackwardArgs& a;
  const Places<Kind>& places;
  int number, warp, lane;
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;

  __device__ void release(int stage) {
    __syncwarp();
    arrive_of_warp(shared_address(&places.control->empty[stage]), lane);
  }

  // Scores to weights; what is masked weighs nothing.
  template <bool kKeys>
  __device__ void weigh(float (&s)[kRows / 8][4], int mask, const MaskWords& words, int stage,
                        const float2 (&numbers)[2], float scale) {
    if constexpr (kKeys) {
      weigh_by_column(s, places.numbers(stage), scale, lane);
    } else {
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] = exp2_fast(fmaf(s[j][e], scale, -numbers[e / 2].x));
    }
    if (mask >= 0) hide(s, words, lane, 0);
  }

  // ds = p (dp - delta), in place of dp.
  __device__ void differentiate(float (&dp)[kRows / 8][4], const float (&p)[kRows / 8][4],
                                const float2 (&numbers)[2]) {
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) dp[j][e] = p[j][e] * (dp[j][e] - numbers[e / 2].y);
  }

  template <bool kKeys>
  __device__ void serve(const Task& task) {
    using T = typename Kind::T;
    const RoleArgs& role = kKeys ? a.keys : a.queries;
    const uint32_t tile = uniform(places.own(slots.stage)), tile_v = tile + Kind::kBytes;
    const auto written = [&](const Rows& to, uint32_t room) {
      return WrittenTile<T>{to.of<T>(task.b, task.h),
                            to.position,
                            to.width,
                            role.sweep.rows.place(2 * task.pair + task.half),
                            room,
                            role.add};
    };
    if (role.add) {
      prefetch_tile<Kind::kWidth>(written(kKeys ? a.base.dk : a.base.dq, tile), warp, lane);
      if constexpr (kKeys) prefetch_tile<Kind::kWidthV>(written(a.base.dv, tile_v), warp, lane);
    }
    const float scale = a.base.scale * kLog2E;
    float2 numbers[2] = {};
    if constexpr (!kKeys) {
      const TilePlace place = role.sweep.rows.place(2 * task.pair + task.half);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t position;
        if (place.find(16 * warp + 8 * r + lane / 4, position))
          numbers[r] = a.numbers[row_of_head(a.base, task.b, task.h) + position];
      }
    }
    float d_own[Kind::kWidth / 8][4] = {};
    float d_own_v[kKeys ? Kind::kWidthV / 8 : 1][4] = {};
    float s[kRows / 8][4], dp[kRows / 8][4];
    uint32_t weights[kRows / 16][4], gradients[kRows / 16][4];
    pin(d_own), pin(d_own_v);  // zeros are written before products are under way
    // The compiler knows a vote to be uniform.
    for (int left = task.visits; __any_sync(0xffffffffu, left > 0); --left) {
      const int stage = ring.stage;
      const uint32_t visited = uniform(places.stage(stage));
      wait(shared_address(&places.control->full[stage]), ring.parity);
      const int mask = places.control->masks[stage];
      const MaskWords words = mask_words<!kKeys>(a.base.masks, mask, warp, lane);
      begin_products();
      row_products<T, Kind::kWidth>(s, tile, visited);
      end_products();
      const auto multiply_v = [&] {
        row_products<T, Kind::kWidthV>(dp, tile_v, visited + Kind::kBytes);
        end_products();
      };
      if constexpr (kKeys) {
        wait_for_products<0>();
      } else {
        multiply_v();
        wait_for_products<1>();
      }
      weigh<kKeys>(s, mask, words, stage, numbers, scale);
      if constexpr (kKeys) {
        round_weights<T>(weights, s);
        begin_products();
        multiply_v();  // only now: scores and gradients of weights share registers
        add_weighted_rows<T, Kind::kWidthV>(d_own_v, weights, visited + Kind::kBytes);
        end_products();
        wait_for_products<1>();
        differentiate_by_column<T>(dp, weights, places.numbers(stage), lane);
      } else {
        wait_for_products<0>();
        differentiate(dp, s, numbers);
      }
      round_weights<T>(gradients, dp);
      begin_products();
      add_weighted_rows<T, Kind::kWidth>(d_own, gradients, visited);
      end_products();
      wait_for_products<0>();
      release(stage);
      ring.advance();
    }
    sync_some(1 + number, kWarpgroup);  // results take the place of the own rows
    const float factor[2] = {a.base.scale, a.base.scale}, one[2] = {1, 1};
    write_tile<T, Kind::kWidth>(d_own, factor, one, written(kKeys ? a.base.dk : a.base.dq, tile), warp, lane);
    if constexpr (kKeys)
      write_tile<T, Kind::kWidthV>(d_own_v, one, one, written(a.base.dv, tile_v), warp, lane);
    publish_to_async();
    arrive_of_warp(shared_address(&places.control->own_empty[slots.stage]), lane);
  }

  __device__ void run() {
    for (;; slots.advance()) {
      wait(shared_address(&places.control->own_full[slots.stage]), slots.parity);
      const Task task = places.control->tasks[slots.stage];
      if (task.b < 0) return;
      if (__any_sync(0xffffffffu, task.is_keys != 0))
        serve<true>(task);
      else
        serve<false>(task);
    }
  }
};

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    backward_kernel(const __grid_constant__ BackwardArgs a) {
  extern __shared__ unsigned char raw[];
  const int warp = uniform(static_cast<int>(threadIdx.x / kWarp)), lane = threadIdx.x % kWarp;
  const int number = warp < 4 * Kind::kLanes ? warp / 4 : min(warp - 4 * Kind::kLanes, Kind::kLanes - 1);
  Places<Kind> places;
  places.base = aligned(shared_address(raw)) + static_cast<uint32_t>(number * Kind::kRoom);
  places.control =
      reinterpret_cast<BackwardControl<Kind>*>(raw + (places.numbers(Kind::kStages) - shared_address(raw)));
  static_assert(sizeof(BackwardControl<Kind>) <= Kind::kControl);
  if (threadIdx.x < Kind::kLanes * kWarpgroup && threadIdx.x % kWarpgroup == 0) {
    BackwardControl<Kind>& control = *places.control;
    for (int i = 0; i < Kind::kStages; ++i) {
      init_barrier(shared_address(&control.full[i]), 1 + kWarp);
      init_barrier(shared_address(&control.empty[i]), kArrivalsOfWarp * 4);
    }
    for (int i = 0; i < Kind::kSlots; ++i) {
      init_barrier(shared_address(&control.own_full[i]), 1);
      init_barrier(shared_address(&control.own_empty[i]), kArrivalsOfWarp * 4);
    }
    publish_barriers();
  }
  __syncthreads();
  if (warp >= 4 * Kind::kLanes) {
    give_registers<producer_registers(Kind::kLanes, Kind::kBlocks)>();
    if (warp - 4 * Kind::kLanes < Kind::kLanes) produce<Kind>(a, places, number);
  } else {
    take_registers<consumer_registers(Kind::kLanes, Kind::kBlocks)>();
    Consumer<Kind> consumer{a, places, number, warp % 4, lane, {}, {}};
    consumer.run();
  }
}

template <class Kind>
bool fill_role(RoleArgs& role, const BoxSweep& sweep, MapMaker& maps, const Rows* own, const Rows* visited) {
  role.sweep = sweep.sweep;
  role.rows = sweep.rows;
  role.own = maps.make(own[0], Kind::kWidth, sweep.row_order, sweep.rows);
  role.own_v = maps.make(own[1], Kind::kWidthV, sweep.row_order, sweep.rows);
  for (int p = 0; p < sweep.passes; ++p) {
    role.others[p] = sweep.others[p];
    role.visited[p] = maps.make(visited[0], Kind::kWidth, sweep.other_orders[p], sweep.others[p]);
    role.visited_v[p] = maps.make(visited[1], Kind::kWidthV, sweep.other_orders[p], sweep.others[p]);
  }
  return maps.good();
}

}  // namespace

bool backward(const Round& round, const BackwardCall& call, const HeadGroup& group) {
  const AttentionArgs& args = call.args;
  return with_tile_widths(call.dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = Backward<T, kWidth, kWidthV>;
    BackwardArgs a;
    a.base = args;
    a.work = work_of(round, group, call.batch, call.counters);
    share_cache(a.work, round, args);
    a.work.parts = 2;
    a.numbers = call.numbers;
    MapMaker maps(call.dtype, args.head_count, call.batch);
    const Rows of_queries[] = {args.q, args.d_o}, of_keys[] = {args.k, args.v};
    if (round.has_queries && !fill_role<Kind>(a.queries, round.queries, maps, of_queries, of_keys))
      return false;
    if (round.has_keys && !fill_role<Kind>(a.keys, round.keys, maps, of_keys, of_queries)) return false;
    a.queries.add = call.add_queries;
    a.keys.add = call.add_keys;
    launch<Kind>(backward_kernel<Kind>, "attention_backward", a);
    return true;
  });
}

}  // namespace longstride::cuda::hopper
