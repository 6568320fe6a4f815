// Sparse attention backward for Hopper in five products, for keys that many queries visit:
//
//   p = exp(scale q.k - lse[q]),  ds = p (d_o[q].v[k] - delta[q])
//   dv = sum_q p d_o,  dk = scale sum_q ds q,  dq = scale sum_k ds k
//
// A block of threads owns a pair of tiles of keys, a tile each of two warpgroups, and visits tiles of queries.
// Keys lie down and queries across, so that weights and their gradients stay in registers as left factors of
// the products for dv and dk. Gradients of weights pass through shared memory once, where dq is summed from
// those of all 128 keys: for widths up to 64 by a third warpgroup, for wider ones by the two, half of the
// columns each and a visit behind the rest.
//
// dq of a tile of queries is a sum over the blocks of threads that visit it. Each adds its part in f32 to a
// tile of sums in memory, by the TMA, when its turn has come: pairs of keys from the last to the first. A
// counter for each tile says whose turn it is. So the sums have one order: the same bits from run to run.
// Tasks begin in that order too, and all go through their queries from the first on: whom a block waits for is
// a visit or more ahead of it. finish_kernel rounds the sums to dq.
#include <algorithm>

#include "longstride/ops/cuda/hopper/attention.cuh"
#include "longstride/ops/cuda/hopper/attention_launch.cuh"
#include "longstride/ops/cuda/hopper/ordered_sums.cuh"

namespace longstride::cuda::hopper {

namespace {

struct OrderedArgs {
  AttentionArgs base;
  Work work;
  BoxOrder rows, others;
  TileMaps q, k, v, d_o;
  const float2* numbers = nullptr;  // (B, H, N): lse * log2 e, delta
  const int* first_pairs = nullptr;
  Sums sums;
  int tiles = 0;  // of queries
  bool add_keys = false;
};

template <class T_, int kWidth_>
struct Ordered {
  using T = T_;
  static constexpr int kWidth = kWidth_, kTiles = 2, kHalf = kWidth / 2;
  // A third warpgroup sums dq, where registers suffice for it.
  static constexpr bool kApart = kWidth <= 64;
  static constexpr int kGroups = kApart ? kTiles + 1 : kTiles;  // that compute
  static constexpr int kThreads = (kGroups + 1) * kWarpgroup, kBlocks = 1, kAskers = 1;
  static constexpr int kSummers = kApart ? 4 : 4 * kTiles;  // warps that sum dq
  // Left factors in registers are not read from shared memory again and again.
  static constexpr bool kKeysInRegisters = kApart, kValuesInRegisters = kApart;
  static constexpr int kBytes = Panels<kWidth>::kBytes;
  static constexpr int kOwnBytes = 2 * kTiles * kBytes, kSlots = kWidth <= 64 ? 2 : 1;  // k, v of a task
  static constexpr int kStageBytes = kTiles * kBytes, kNumbersBytes = kRows * 8;        // q, d_o
  static constexpr int kMixed = 2,
                       kMixedBytes = kTiles * Panels<64>::kBytes;  // ds: keys down, queries across
  static constexpr int kSums = kWidth <= 64 ? 3 : 2;  // tiles on their way to memory, a warp for each
  static constexpr int kHalfSumBytes = kRows * kHalf * 4, kSumBytes = kTiles * kHalfSumBytes;
  static constexpr int kControl = 1024;
  static constexpr int kRoom =
      kSharedOfChip - kAlignment - kControl - kSlots * kOwnBytes - kMixed * kMixedBytes - kSums * kSumBytes;
  static constexpr int kMost = kRoom / (kStageBytes + kNumbersBytes);
  static constexpr int kStages = kMost < kMostStages ? kMost : kMostStages;
  static_assert(kStages >= 2);
  static constexpr int kSharedBytes = kAlignment + kSlots * kOwnBytes + kMixed * kMixedBytes +
                                      kSums * kSumBytes + kStages * (kStageBytes + kNumbersBytes) + kControl;
};

template <class Kind>
struct OrderedControl {
  int2 masks[Kind::kStages];  // by half of the pair
  Turn turns[Kind::kStages];
  Turn mixed[Kind::kMixed], sums[Kind::kSums];
  uint64_t full[Kind::kStages], empty[Kind::kStages];
  uint64_t own_full[Kind::kSlots], own_empty[Kind::kSlots];
  uint64_t sum_full[Kind::kSums], sum_empty[Kind::kSums];
  uint64_t mixed_full[Kind::kMixed], mixed_empty[Kind::kMixed];
  Task tasks[Kind::kSlots];
};

// Where the parts of shared memory lie.
template <class Kind>
struct OrderedPlaces {
  uint32_t base;
  OrderedControl<Kind>* control;
  __device__ uint32_t keys(int slot, int half) const {
    return base + static_cast<uint32_t>(slot * Kind::kOwnBytes + half * Kind::kBytes);
  }
  __device__ uint32_t values(int slot, int half) const { return keys(slot, Kind::kTiles + half); }
  __device__ uint32_t mixed(int i, int half) const {
    return keys(Kind::kSlots, 0) + static_cast<uint32_t>(i * Kind::kMixedBytes + half * Panels<64>::kBytes);
  }
  __device__ uint32_t sums(int i) const {
    return mixed(Kind::kMixed, 0) + static_cast<uint32_t>(i * Kind::kSumBytes);
  }
  __device__ uint32_t stage(int i) const {
    return sums(Kind::kSums) + static_cast<uint32_t>(i * Kind::kStageBytes);
  }
  __device__ uint32_t numbers(int i) const {
    return stage(Kind::kStages) + static_cast<uint32_t>(i * Kind::kNumbersBytes);
  }
};

// The warp that fetches.
template <class Kind>
__device__ void produce(const OrderedArgs& a, const OrderedPlaces<Kind>& places) {
  const int lane = threadIdx.x % kWarp;
  OrderedControl<Kind>& control = *places.control;
  // A task that was drawn but not begun would hold up all that wait for its turns.
  TaskQueue queue(a.work, blockIdx.x, gridDim.x, false);
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;
  for (;;) {
    const Task task = queue.next_of_warp();
    const uint32_t own_full = shared_address(&control.own_full[slots.stage]);
    wait(shared_address(&control.own_empty[slots.stage]), slots.parity ^ 1);
    if (lane == 0) control.tasks[slots.stage] = task;
    if (task.b < 0) {
      if (lane == 0) arrive(own_full);
      return;
    }
    if (lane == 0) {
      // A tile that does not exist becomes zeros, which both warpgroups multiply with.
      arrive_expecting(own_full, Kind::kOwnBytes);
      for (int half = 0; half < Kind::kTiles; ++half) {
        const int tile = Kind::kTiles * task.pair + half;
        fetch_tile<Kind::kWidth>(places.keys(slots.stage, half), a.k, a.rows, tile, task.b, task.h, own_full);
        fetch_tile<Kind::kWidth>(places.values(slots.stage, half), a.v, a.rows, tile, task.b, task.h,
                                 own_full);
      }
    }
    const float2* numbers = a.numbers + row_of_head(a.base, task.b, task.h);
    for_visits(a.base.sweep, task.pair, false, [&](int tile, int, const int2& masks) {
      const uint32_t full = shared_address(&control.full[ring.stage]), stage = places.stage(ring.stage);
      wait(shared_address(&control.empty[ring.stage]), ring.parity ^ 1);
      if (lane == 0) {
        control.masks[ring.stage] = masks;
        control.turns[ring.stage] = {task.column * a.tiles + tile, __ldg(a.first_pairs + tile) - task.pair};
        arrive_expecting(full, Kind::kStageBytes);
        fetch_tile<Kind::kWidth>(stage, a.q, a.others, tile, task.b, task.h, full);
        fetch_tile<Kind::kWidth>(stage + Kind::kBytes, a.d_o, a.others, tile, task.b, task.h, full);
      }
      copy_numbers(places.numbers(ring.stage), numbers, a.base.sweep.others[0].place(tile), lane);
      arrive_after_copies(full);
      __syncwarp();
      ring.advance();
    });
    slots.advance();
  }
}

// A thread that brings tiles of sums to memory: those of one place in shared memory, each when its turn has
// come.
template <class Kind>
__device__ void store_sums(const OrderedArgs& a, const OrderedPlaces<Kind>& places, int place) {
  const uint32_t full = shared_address(&places.control->sum_full[place]),
                 empty = shared_address(&places.control->sum_empty[place]), from = places.sums(place);
  for (uint32_t parity = 0;; parity ^= 1) {
    wait(full, parity);
    const Turn turn = places.control->sums[place];
    if (turn.tile < 0) return;
    int* const counter = a.sums.turns + turn.tile;
    char* const to = reinterpret_cast<char*>(a.sums.tiles) + int64_t{turn.tile} * Kind::kSumBytes;
    if (turn.rank == 0) {
      store_bytes(to, from, Kind::kSumBytes);
    } else {
      wait_for_turn(counter, turn.rank);
      add_floats(to, from, Kind::kSumBytes);
    }
    end_stores();
    wait_until_read();
    arrive(empty);
    wait_until_stored();
    pass_turn(counter, turn.rank + 1);
  }
}

// What a warpgroup that computes keeps over all its tasks.
template <class Kind>
struct Computing {
  using T = typename Kind::T;
  const OrderedArgs& a;
  const OrderedPlaces<Kind>& places;
  int own, warp, lane;  // own: of which half of a pair, or of the columns of dq
  Ring<Kind::kSlots> slots;
  Ring<Kind::kMixed> behind;  // gradients of weights, as they are read
  Ring<Kind::kSums> sums;

  __device__ OrderedControl<Kind>& control() const { return *places.control; }

  // Starts dq of a visit, kColumns from `half` on, from the gradients of all keys of the pair.
  template <int kColumns>
  __device__ void multiply_gradients(float (&dq)[kColumns / 8][4], int half) {
    const uint32_t keys = uniform(places.keys(slots.stage, 0));
    begin_products();
#pragma unroll
    for (int of = 0; of < Kind::kTiles; ++of)
      transposed_products<T, Kind::kWidth, kColumns>(dq, uniform(places.mixed(behind.stage, of)),
                                                     keys + static_cast<uint32_t>(of * Kind::kBytes), half,
                                                     of > 0);
    end_products();
  }
  __device__ void wait_for_gradients() {
    wait(shared_address(&control().mixed_full[behind.stage]), behind.parity);
  }
  // Hands dq of a visit to the warp that stores it, and the gradients back.
  template <int kColumns>
  __device__ void hand_over(const float (&dq)[kColumns / 8][4], int half) {
    const Turn turn = control().mixed[behind.stage];
    __syncwarp();
    arrive_of_warp(shared_address(&control().mixed_empty[behind.stage]), lane);
    behind.advance();
    wait(shared_address(&control().sum_empty[sums.stage]), sums.parity ^ 1);
    write_sums<Kind, kColumns>(dq, places.sums(sums.stage), half, warp, lane);
    end_sum(turn);
  }
  __device__ void end_sum(const Turn& turn) {
    if (own == 0 && warp == 0 && lane == 0) control().sums[sums.stage] = turn;
    publish_to_async();
    __syncwarp();
    arrive_of_warp(shared_address(&control().sum_full[sums.stage]), lane);
    sums.advance();
  }
  // Nothing more comes for the warps that store.
  __device__ void end_sums() {
    for (int i = 0; i < Kind::kSums; ++i) {
      wait(shared_address(&control().sum_empty[sums.stage]), sums.parity ^ 1);
      end_sum({});
    }
  }
};

// The warpgroup that sums dq, where it has no other work.
template <class Kind>
__device__ void sum_queries(Computing<Kind>& c) {
  for (;; c.slots.advance()) {
    wait(shared_address(&c.control().own_full[c.slots.stage]), c.slots.parity);
    const Task task = c.control().tasks[c.slots.stage];
    if (task.b < 0) break;
    for (int left = task.visits; __any_sync(0xffffffffu, left > 0); --left) {
      float dq[Kind::kWidth / 8][4];
      c.wait_for_gradients();
      c.template multiply_gradients<Kind::kWidth>(dq, 0);
      wait_for_products<0>();
      c.template hand_over<Kind::kWidth>(dq, 0);
    }
    sync_some(1, Kind::kGroups * kWarpgroup);  // this one has read the keys and the task
    arrive_of_warp(shared_address(&c.control().own_empty[c.slots.stage]), c.lane);
  }
  c.end_sums();
}

// A warpgroup that owns a tile of keys.
template <class Kind>
__device__ void sum_keys(Computing<Kind>& c) {
  using T = typename Kind::T;
  const OrderedArgs& a = c.a;
  const OrderedPlaces<Kind>& places = c.places;
  OrderedControl<Kind>& control = *places.control;
  const int own = c.own, warp = c.warp, lane = c.lane;
  const float scale = a.base.scale * kLog2E;
  Ring<Kind::kStages> ring;
  Ring<Kind::kMixed> mixed;
  for (;; c.slots.advance()) {
    wait(shared_address(&control.own_full[c.slots.stage]), c.slots.parity);
    const Task task = control.tasks[c.slots.stage];
    if (task.b < 0) break;
    const uint32_t keys = uniform(places.keys(c.slots.stage, own)),
                   values = uniform(places.values(c.slots.stage, own));
    float dk[Kind::kWidth / 8][4] = {}, dv[Kind::kWidth / 8][4] = {};
    float s[kRows / 8][4], dp[kRows / 8][4];
    uint32_t weights[kRows / 16][4];
    pin(dk), pin(dv);  // zeros are written before products are under way
    const LeftFactor<T, Kind::kWidth, Kind::kKeysInRegisters> k(keys, warp, lane);
    const LeftFactor<T, Kind::kWidth, Kind::kValuesInRegisters> v(values, warp, lane);
    const auto multiply_queries = [&](int stage) {
      begin_products();
      k.multiply(s, uniform(places.stage(stage)));
      end_products();
    };
    // Weights and their gradients before the softmax's derivative, of the visit in `stage`, whose scores are
    // under way.
    const auto weigh = [&](int stage) {
      const int mask = reinterpret_cast<const int*>(&control.masks[stage])[own];
      const MaskWords words = mask_words<false>(a.base.masks, mask, warp, lane);
      begin_products();
      v.multiply(dp, uniform(places.stage(stage)) + Kind::kBytes);
      end_products();
      wait_for_products<1>();
      weigh_by_column(s, places.numbers(stage), scale, lane);
      if (mask != kFull) hide(s, words, lane, 0);  // all of it where it is absent
      round_weights<T>(weights, s);
      wait_for_products<0>();
    };
    // What is summed up from them into dv and dk, under way at its end. Gradients go to shared memory too.
    const auto add_up = [&](int stage) {
      const uint32_t queries = uniform(places.stage(stage)), gradients = queries + Kind::kBytes;
      begin_products();
      add_weighted_rows<T, Kind::kWidth>(dv, weights, gradients);
      end_products();
      differentiate_by_column<T>(dp, weights, places.numbers(stage), lane);
      uint32_t ds[kRows / 16][4];
      round_weights<T>(ds, dp);
      wait(shared_address(&control.mixed_empty[mixed.stage]), mixed.parity ^ 1);
      store_rows(ds, places.mixed(mixed.stage, own), warp, lane);
      begin_products();
      add_weighted_rows<T, Kind::kWidth>(dk, ds, queries);
      end_products();
      if (own == 0 && warp == 0 && lane == 0) control.mixed[mixed.stage] = control.turns[stage];
      publish_to_async();
      __syncwarp();
      arrive_of_warp(shared_address(&control.mixed_full[mixed.stage]), lane);
      mixed.advance();
    };
    const auto release = [&](int stage) {
      __syncwarp();
      arrive_of_warp(shared_address(&control.empty[stage]), lane);
    };
    const auto wait_for_queries = [&] { wait(shared_address(&control.full[ring.stage]), ring.parity); };
    // The compiler knows a vote to be uniform, and wants one path through what is under way: so there are
    // products for nothing after the last visit, and in some widths before the first.
    if (__any_sync(0xffffffffu, task.visits > 0)) {
      wait_for_queries();
      multiply_queries(ring.stage);
      weigh(ring.stage);
      if constexpr (Kind::kApart) {
        for (int left = task.visits - 1;; --left) {
          const int stage = ring.stage;
          add_up(stage);
          ring.advance();
          const bool more = __any_sync(0xffffffffu, left > 0);
          if (more) wait_for_queries();
          const int next = uniform(more ? ring.stage : stage);
          multiply_queries(next);
          wait_for_products<1>();
          if (more) release(stage);
          weigh(next);
          if (!more) {
            release(stage);
            break;
          }
        }
      } else {
        // dq is a visit behind the rest, so that a warpgroup need not wait for the other's gradients and the
        // two drift apart: while one is at its exponentials the other multiplies.
        float dq[Kind::kHalf / 8][4];
        for (int visit = 0;; ++visit) {
          const int stage = ring.stage;
          add_up(stage);
          const bool has_behind = __any_sync(0xffffffffu, visit > 0);
          if (has_behind) c.wait_for_gradients();
          c.template multiply_gradients<Kind::kHalf>(dq, own);
          ring.advance();
          wait_for_products<0>();
          release(stage);
          if (has_behind) c.template hand_over<Kind::kHalf>(dq, own);
          if (!__any_sync(0xffffffffu, visit + 1 < task.visits)) break;
          wait_for_queries();
          multiply_queries(ring.stage);
          weigh(ring.stage);
        }
        c.wait_for_gradients();
        c.template multiply_gradients<Kind::kHalf>(dq, own);
        wait_for_products<0>();
        c.template hand_over<Kind::kHalf>(dq, own);
      }
    }
    sync_some(1, Kind::kGroups * kWarpgroup);  // results take the place of keys that all have read
    const float factor[2] = {a.base.scale, a.base.scale}, one[2] = {1, 1};
    const auto write = [&](const float(&d)[Kind::kWidth / 8][4], const float(&times)[2], const Rows& to,
                           uint32_t room) {
      write_tile<T, Kind::kWidth>(d, times, one,
                                  {to.of<T>(task.b, task.h), to.position, to.width,
                                   a.base.sweep.rows.place(Kind::kTiles * task.pair + own), room, a.add_keys},
                                  warp, lane);
    };
    write(dv, one, a.base.dv, values);
    write(dk, factor, a.base.dk, keys);
    publish_to_async();
    arrive_of_warp(shared_address(&control.own_empty[c.slots.stage]), lane);
  }
  if constexpr (!Kind::kApart) c.end_sums();
}

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    ordered_kernel(const __grid_constant__ OrderedArgs a) {
  extern __shared__ unsigned char raw[];
  OrderedPlaces<Kind> places;
  places.base = aligned(shared_address(raw));
  places.control =
      reinterpret_cast<OrderedControl<Kind>*>(raw + (places.numbers(Kind::kStages) - shared_address(raw)));
  static_assert(sizeof(OrderedControl<Kind>) <= Kind::kControl);
  if (threadIdx.x == 0) {
    OrderedControl<Kind>& control = *places.control;
    for (int i = 0; i < Kind::kStages; ++i) {
      init_barrier(shared_address(&control.full[i]), 1 + kWarp);
      init_barrier(shared_address(&control.empty[i]), kArrivalsOfWarp * 4 * Kind::kTiles);
    }
    for (int i = 0; i < Kind::kSlots; ++i) {
      init_barrier(shared_address(&control.own_full[i]), 1);
      init_barrier(shared_address(&control.own_empty[i]), kArrivalsOfWarp * 4 * Kind::kGroups);
    }
    for (int i = 0; i < Kind::kSums; ++i) {
      init_barrier(shared_address(&control.sum_full[i]), kArrivalsOfWarp * Kind::kSummers);
      init_barrier(shared_address(&control.sum_empty[i]), 1);
    }
    for (int i = 0; i < Kind::kMixed; ++i) {
      init_barrier(shared_address(&control.mixed_full[i]), kArrivalsOfWarp * 4 * Kind::kTiles);
      init_barrier(shared_address(&control.mixed_empty[i]), kArrivalsOfWarp * Kind::kSummers);
    }
    publish_barriers();
  }
  __syncthreads();
  // Registers: all that the block was launched with, shared out.
  constexpr int kOfProducer = 24, kOfQueries = 72;
  constexpr int kOfKeys = Kind::kApart ? 208 : 240;
  const int warp = uniform(static_cast<int>(threadIdx.x / kWarp)), group = warp / 4;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  if (group == Kind::kGroups) {
    give_registers<kOfProducer>();
    if (warp % 4 == 0)
      produce<Kind>(a, places);
    else if (warp % 4 <= Kind::kSums && lane == 0)
      store_sums<Kind>(a, places, warp % 4 - 1);
    return;
  }
  Computing<Kind> computing{a, places, group % Kind::kTiles, warp % 4, lane, {}, {}, {}};
  if (group == Kind::kTiles) {
    give_registers<kOfQueries>();
    sum_queries<Kind>(computing);
  } else {
    take_registers<kOfKeys>();
    sum_keys<Kind>(computing);
  }
}

template <int kWidth, int kWidthV>
constexpr bool kServed = kWidth == kWidthV&& kWidth >= 64;

}  // namespace

bool pays_in_order(const ListLengths& lengths, int columns) {
  // By measurement: with lists of 9 visits it wins, with 3 the sums in memory cost more than they save.
  constexpr double kFewestVisits = 8;
  // The longest lists come last, and while they end, multiprocessors have nothing to do: there must be several
  // such lists for each.
  constexpr double kFewestRounds = 2.5;
  const double each = lengths.total / 2 * columns / multiprocessors();  // by pairs of tiles
  return lengths.mean >= kFewestVisits && each >= kFewestRounds * lengths.longest;
}

bool serves_in_order(DType dtype, int width, int width_v) {
  return with_tile_widths(dtype, width, width_v,
                          [&]<class, int kWidth, int kWidthV>() { return kServed<kWidth, kWidthV>; });
}

bool backward_ordered(const Round& round, const BackwardCall& call, const HeadGroup& group,
                      const Sums& sums) {
  const AttentionArgs& args = call.args;
  return with_tile_widths(call.dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    if constexpr (!kServed<kWidth, kWidthV>) return false;
    using Kind = Ordered < T, kWidth<64 ? 64 : kWidth>;
    static_assert(Kind::kSumBytes == bytes_of_sum(Kind::kWidth));
    OrderedArgs a;
    a.base = args;
    a.base.sweep = round.keys.sweep;
    a.work = work_of(round, group, call.batch, call.counters);
    a.rows = round.keys.rows, a.others = round.keys.others[0];
    MapMaker maps(call.dtype, args.head_count, call.batch);
    const TokenOrder &own = round.keys.row_order, &other = round.keys.other_orders[0];
    a.k = maps.make(args.k, Kind::kWidth, own, a.rows), a.v = maps.make(args.v, Kind::kWidth, own, a.rows);
    a.q = maps.make(args.q, Kind::kWidth, other, a.others);
    a.d_o = maps.make(args.d_o, Kind::kWidth, other, a.others);
    if (!maps.good()) return false;
    a.numbers = call.numbers;
    a.first_pairs = round.first_pairs;
    a.sums = sums;
    a.tiles = round.keys.sweep.others[0].tiles;
    a.add_keys = call.add_keys;
    FinishArgs finish{round.keys.sweep.others[0], args.dq, round.first_pairs, sums.tiles,      group.heads,
                      group.head_count,           0,       args.scale,        call.add_queries};
    const int columns = a.work.columns;
    for (int first = 0; first < columns; first += sums.columns) {
      a.work.first_column = finish.first_column = first;
      a.work.columns = std::min(sums.columns, columns - first);
      // One head after the other: then their sums stay in the cache, and few of the longest lists are left for
      // the end. By measurement: fixed:128,32 over 12,288 positions takes 1.04 ms, not 1.15 with nine at once.
      a.work.columns_at_once = 1;
      LONGSTRIDE_CUDA_CHECK(cudaMemsetAsync(
          sums.turns, 0, sizeof(int) * static_cast<size_t>(a.work.columns) * static_cast<size_t>(a.tiles),
          current()));
      launch<Kind>(ordered_kernel<Kind>, "attention_backward", a);
      const dim3 grid(static_cast<unsigned>(a.tiles), static_cast<unsigned>(a.work.columns));
      finish_kernel<T, Kind::kWidth><<<grid, 256, 0, current()>>>(finish);
      check_launch("attention_backward's sums");
    }
    return true;
  });
}

}  // namespace longstride::cuda::hopper
