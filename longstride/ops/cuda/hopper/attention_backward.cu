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
// A warpgroup works ahead by one visit: while it takes exponentials for one, products of the last are under
// way.
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

template <class T_, int kWidth_, int kWidthV_>
struct Backward {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_, kTiles = 2;
  static constexpr int kThreads = (kTiles + 1) * kWarpgroup;
  static constexpr int kBlocks = 1;
  // Works ahead, with its own rows in registers; else registers do not suffice.
  static constexpr bool kAhead = kWidthV <= 64;
  static constexpr int kBytes = Panels<kWidth>::kBytes, kBytesV = Panels<kWidthV>::kBytes;
  static constexpr int kOwnBytes = kBytes + kBytesV;
  static constexpr int kNumbersBytes = kRows * 8;
  static constexpr int kControl = 3 * 1024;
  static constexpr int kStageBytes = kBytes + kBytesV;
  static constexpr int kSlots = kWidthV <= 64 ? 2 : 1;
  static constexpr int kStages =
      stages_that_fit(kBlocks, kSlots* kTiles* kOwnBytes, kStageBytes + kNumbersBytes, kControl);
  static constexpr int kSharedBytes =
      kAlignment + kSlots * kTiles * kOwnBytes + kStages * (kStageBytes + kNumbersBytes) + kControl;
};

template <class Kind>
struct BackwardControl {
  int2 masks[Kind::kStages];  // by half of the pair
  uint64_t full[Kind::kStages], empty[Kind::kStages];
  uint64_t own_full[Kind::kSlots], own_empty[Kind::kSlots];
  Task tasks[Kind::kSlots];
  float2 own_numbers[Kind::kSlots][Kind::kTiles * kRows];  // of the queries' role
};

// Where the parts of shared memory lie.
template <class Kind>
struct Places {
  uint32_t own, stages, numbers;
  BackwardControl<Kind>* control;
  __device__ uint32_t own_tile(int slot, int tile) const {
    return own + static_cast<uint32_t>((slot * Kind::kTiles + tile) * Kind::kOwnBytes);
  }
  __device__ uint32_t stage(int i) const { return stages + static_cast<uint32_t>(i * Kind::kStageBytes); }
  __device__ uint32_t numbers_of(int i) const {
    return numbers + static_cast<uint32_t>(i * Kind::kNumbersBytes);
  }
};

// The producer's warp: its first lane starts the TMA, all lanes copy the numbers of visited queries.
template <class Kind>
__device__ void produce(const BackwardArgs& a, const Places<Kind>& places) {
  const int lane = threadIdx.x % kWarp;
  BackwardControl<Kind>& control = *places.control;
  TaskQueue queue(a.work);
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;
  for (;;) {
    const Task task = queue.next_of_warp();
    const uint32_t own_full = shared_address(&control.own_full[slots.stage]);
    wait(shared_address(&control.own_empty[slots.stage]), slots.parity ^ 1);
    if (task.b < 0) {
      if (lane == 0) {
        control.tasks[slots.stage] = task;
        arrive(own_full);
      }
      arrive(own_full);
      return;
    }
    const RoleArgs& role = task.is_keys != 0 ? a.keys : a.queries;
    const int first = Kind::kTiles * task.pair, count = min(Kind::kTiles, role.sweep.rows.tiles - first);
    if (lane == 0) {
      control.tasks[slots.stage] = task;
      arrive_expecting(own_full, static_cast<uint32_t>(count * Kind::kOwnBytes));
      for (int i = 0; i < count; ++i) {
        const uint32_t tile = places.own_tile(slots.stage, i);
        fetch_tile<Kind::kWidth>(tile, role.own, role.rows, first + i, task.b, task.h, own_full);
        fetch_tile<Kind::kWidthV>(tile + Kind::kBytes, role.own_v, role.rows, first + i, task.b, task.h,
                                  own_full);
      }
    }
    const float2* numbers = a.numbers + row_of_head(a.base, task.b, task.h);
    if (task.is_keys == 0)
      for (int i = 0; i < Kind::kTiles; ++i)
        copy_numbers(shared_address(&control.own_numbers[slots.stage][i * kRows]), numbers,
                     role.sweep.rows.place(first + i), lane);
    arrive_after_copies(own_full);
    for_visits(role.sweep, task.pair, [&](int tile, int pass, const int2& masks) {
      const uint32_t full = shared_address(&control.full[ring.stage]);
      const uint32_t stage = places.stage(ring.stage);
      wait(shared_address(&control.empty[ring.stage]), ring.parity ^ 1);
      if (lane == 0) {
        control.masks[ring.stage] = masks;
        arrive_expecting(full, Kind::kStageBytes);
        fetch_tile<Kind::kWidth>(stage, role.visited[pass], role.others[pass], tile, task.b, task.h, full);
        fetch_tile<Kind::kWidthV>(stage + Kind::kBytes, role.visited_v[pass], role.others[pass], tile, task.b,
                                  task.h, full);
      }
      if (task.is_keys != 0)
        copy_numbers(places.numbers_of(ring.stage), numbers, role.sweep.others[pass].place(tile), lane);
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
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;
  int own, warp, lane;

  __device__ void release(int stage) {
    if (lane == 0) arrive(shared_address(&places.control->empty[stage]));
  }
  // Goes on to the next visit that this warpgroup takes part in; kAbsent: there is none.
  __device__ int next_mask(int& left) {
    for (; left > 0; --left) {
      wait(shared_address(&places.control->full[ring.stage]), ring.parity);
      const int mask = reinterpret_cast<const int*>(&places.control->masks[ring.stage])[own];
      if (mask != kAbsent) return mask;
      __syncwarp();
      release(ring.stage);
      ring.advance();
    }
    return kAbsent;
  }

  // Scores to weights; what is masked weighs nothing.
  template <bool kKeys>
  __device__ void weigh(float (&s)[kRows / 8][4], int mask, const MaskWords& words, int stage,
                        const float2 (&numbers)[2], float scale) {
    if constexpr (kKeys) {
      weigh_by_column(s, places.numbers_of(stage), scale, lane);
    } else {
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] = exp2_fast(fmaf(s[j][e], scale, -numbers[e / 2].x));
    }
    if (mask >= 0) hide(s, words, lane, 0);
  }

  // ds = p (dp - delta), in place of dp.
  template <bool kKeys>
  __device__ void differentiate(float (&dp)[kRows / 8][4], const float (&p)[kRows / 8][4], int stage,
                                const float2 (&numbers)[2]) {
    if constexpr (kKeys) {
      differentiate_by_column(dp, p, places.numbers_of(stage), lane);
    } else {
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) dp[j][e] = p[j][e] * (dp[j][e] - numbers[e / 2].y);
    }
  }

  template <bool kKeys>
  __device__ void serve(const Task& task) {
    using T = typename Kind::T;
    const RoleArgs& role = kKeys ? a.keys : a.queries;
    const uint32_t tile = uniform(places.own_tile(slots.stage, own)), tile_v = tile + Kind::kBytes;
    const auto written = [&](const Rows& to, uint32_t room) {
      return WrittenTile<T>{to.of<T>(task.b, task.h),
                            to.position,
                            to.width,
                            role.sweep.rows.place(Kind::kTiles * task.pair + own),
                            room,
                            role.add};
    };
    if (role.add) {
      prefetch_tile<Kind::kWidth>(written(kKeys ? a.base.dk : a.base.dq, tile), warp, lane);
      if constexpr (kKeys) prefetch_tile<Kind::kWidthV>(written(a.base.dv, tile_v), warp, lane);
    }
    const float scale = a.base.scale * kLog2E;
    float2 numbers[2] = {};
    if constexpr (!kKeys)
      for (int r = 0; r < 2; ++r)
        numbers[r] = places.control->own_numbers[slots.stage][own * kRows + 16 * warp + 8 * r + lane / 4];
    float d_own[Kind::kWidth / 8][4] = {};
    float d_own_v[kKeys ? Kind::kWidthV / 8 : 1][4] = {};
    float s[kRows / 8][4], dp[kRows / 8][4];
    uint32_t weights[kRows / 16][4], gradients[kRows / 16][4];
    uint32_t rows[Kind::kAhead ? Kind::kWidth / 16 : 1][4], rows_v[Kind::kAhead ? Kind::kWidthV / 16 : 1][4];
    if constexpr (Kind::kAhead) {
      load_rows<Kind::kWidth>(rows, tile, warp, lane);
      load_rows<Kind::kWidthV>(rows_v, tile_v, warp, lane);
    }
    uint32_t visited = 0, last_visited = 0;  // where the visit's tiles lie
    const auto words_of = [&](int of_visit) {
      return mask_words<!kKeys>(a.base.masks, of_visit, warp, lane);
    };
    const auto multiply = [&] {
      if constexpr (Kind::kAhead)
        row_products<T, Kind::kWidth>(s, rows, visited);
      else
        row_products<T, Kind::kWidth>(s, tile, visited);
      end_products();
    };
    const auto multiply_v = [&] {
      if constexpr (Kind::kAhead)
        row_products<T, Kind::kWidthV>(dp, rows_v, visited + Kind::kBytes);
      else
        row_products<T, Kind::kWidthV>(dp, tile_v, visited + Kind::kBytes);
      end_products();
    };
    int left = task.visits, mask = next_mask(left), stage = ring.stage, last = -1;
    visited = last_visited = uniform(places.stage(stage));
    bool more = __any_sync(0xffffffffu, mask != kAbsent);  // the compiler knows a vote to be uniform
    MaskWords words = words_of(mask);
    if (more) {
      pin(d_own), pin(d_own_v);  // zeros are written before products are under way
      begin_products();
      multiply();
      multiply_v();
      wait_for_products<1>();
      for (;;) {  // left where nothing is under way
        weigh<kKeys>(s, mask, words, stage, numbers, scale);
        if constexpr (kKeys) {
          round_weights<T>(weights, s);
          begin_products();
          add_weighted_rows<T, Kind::kWidthV>(d_own_v, weights, visited + Kind::kBytes);
          end_products();
          wait_for_products<1>();
        } else {
          wait_for_products<0>();
        }
        // Products of the visit before this one have ended, too.
        if (last >= 0) release(last);
        differentiate<kKeys>(dp, s, stage, numbers);
        round_weights<T>(gradients, dp);
        last = stage;
        --left;
        ring.advance();
        mask = next_mask(left);
        stage = ring.stage;
        last_visited = visited;
        visited = uniform(places.stage(stage));
        words = words_of(mask);
        more = __any_sync(0xffffffffu, mask != kAbsent);
        if (!more) {
          begin_products();
          add_weighted_rows<T, Kind::kWidth>(d_own, gradients, last_visited);
          end_products();
          wait_for_products<0>();
          break;
        }
        if constexpr (!Kind::kAhead) {
          begin_products();
          add_weighted_rows<T, Kind::kWidth>(d_own, gradients, last_visited);
          end_products();
          wait_for_products<0>();
        }
        begin_products();
        multiply();
        if constexpr (Kind::kAhead) {
          add_weighted_rows<T, Kind::kWidth>(d_own, gradients, last_visited);
          end_products();
        }
        multiply_v();
        wait_for_products<Kind::kAhead ? 2 : 1>();
      }
    }
    if (last >= 0) release(last);

    sync_some(1 + own, kWarpgroup);  // results take the place of the own rows
    const float factor[2] = {a.base.scale, a.base.scale}, one[2] = {1, 1};
    write_tile<T, Kind::kWidth>(d_own, factor, one, written(kKeys ? a.base.dk : a.base.dq, tile), warp, lane);
    if constexpr (kKeys)
      write_tile<T, Kind::kWidthV>(d_own_v, one, one, written(a.base.dv, tile_v), warp, lane);
    publish_to_async();
    if (lane == 0) arrive(shared_address(&places.control->own_empty[slots.stage]));
  }

  __device__ void run() {
    for (;; slots.advance()) {
      wait(shared_address(&places.control->own_full[slots.stage]), slots.parity);
      const Task task = places.control->tasks[slots.stage];
      if (task.b < 0) return;
      if (task.is_keys != 0)
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
  Places<Kind> places;
  places.own = aligned(shared_address(raw));
  places.stages = places.own + Kind::kSlots * Kind::kTiles * Kind::kOwnBytes;
  places.numbers = places.stages + Kind::kStages * Kind::kStageBytes;
  places.control = reinterpret_cast<BackwardControl<Kind>*>(raw + (places.numbers - shared_address(raw)) +
                                                            Kind::kStages * Kind::kNumbersBytes);
  static_assert(sizeof(BackwardControl<Kind>) <= Kind::kControl);
  if (threadIdx.x == 0) {
    BackwardControl<Kind>& control = *places.control;
    for (int i = 0; i < Kind::kStages; ++i) {
      init_barrier(shared_address(&control.full[i]), 1 + kWarp);
      init_barrier(shared_address(&control.empty[i]), 4 * Kind::kTiles);
    }
    for (int i = 0; i < Kind::kSlots; ++i) {
      init_barrier(shared_address(&control.own_full[i]), 1 + kWarp);
      init_barrier(shared_address(&control.own_empty[i]), 4 * Kind::kTiles);
    }
    publish_barriers();
  }
  __syncthreads();
  const int warp = threadIdx.x / kWarp;
  if (threadIdx.x >= Kind::kTiles * kWarpgroup) {
    give_registers<kProducerRegisters>();
    if (warp == 4 * Kind::kTiles) produce<Kind>(a, places);
  } else {
    take_registers<consumer_registers(Kind::kTiles, Kind::kBlocks)>();
    Consumer<Kind> consumer{
        a, places, {}, {}, uniform(warp / 4), warp % 4, static_cast<int>(threadIdx.x % kWarp)};
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
    a.numbers = call.numbers;
    MapMaker maps(call.dtype, args.n, args.head_count, call.batch);
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
