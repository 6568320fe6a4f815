// Sparse attention backward for Hopper over long lists: five products a pair of tiles.
//
//   p = exp(scale q.k - lse[q]),  ds = p (d_o[q].v[k] - delta[q])
//   dv = sum_q p d_o,  dk = scale sum_q ds q,  dq = scale sum_k ds k
//
// A block of threads owns 128 keys and visits queries, two tiles of 64 at a step. Warpgroup i owns keys i,
// holds their dk and dv in registers and puts ds, keys down and queries across, into shared memory; then it
// multiplies the ds of both warpgroups for visited tile i with all keys, which is this block's part of that
// tile's dq. The TMA adds it to dq in f32 in global memory, in the order in which blocks were handed out: a
// counter for each tile of queries says whose turn it is. So the same bits come out in every run, and since a
// block only waits for those that were started before it, there is always one that can go on.
#include "longstride/ops/cuda/hopper/attention.cuh"
#include "longstride/ops/cuda/hopper/attention_launch.cuh"

namespace longstride::cuda::hopper {

namespace {

struct LongArgs {
  AttentionArgs base;
  Work work;
  const float2* numbers = nullptr;  // (B, H, N): lse * log2 e, delta
  int* turns = nullptr;             // (B, H, tiles of queries): how many blocks have added to the tile
  int query_tiles = 0;
  BoxOrder keys, queries;
  TileMaps k, v, q, d_o;
  TileMaps dq;  // f32, (B, H, N, kWidth)
  bool add = false;
};

template <class T_, int kWidth_, int kWidthV_>
struct Long {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_, kTiles = 2;
  static constexpr int kThreads = (kTiles + 1) * kWarpgroup, kBlocks = 1;
  static constexpr int kBytes = Panels<kWidth>::kBytes, kBytesV = Panels<kWidthV>::kBytes;
  static constexpr int kOwnBytes = kTiles * (kBytes + kBytesV);             // k, k, v, v
  static constexpr int kMixedBytes = kTiles * kTiles * Panels<64>::kBytes;  // ds by keys and visited tile
  static constexpr int kSumBytes = kRows * kWidth * 4;                      // dq of a tile
  static constexpr int kNumbersBytes = kRows * 8;
  static constexpr int kStageBytes = kBytes + kBytesV;
  static constexpr int kControl = 2 * 1024;
  static constexpr int kStages = stages_that_fit(kBlocks, kOwnBytes + 2 * kMixedBytes + kTiles * kSumBytes,
                                                 kStageBytes + kNumbersBytes, kControl);
  static constexpr int kSharedBytes = kAlignment + kOwnBytes + 2 * kMixedBytes + kTiles * kSumBytes +
                                      kStages * (kStageBytes + kNumbersBytes) + kControl;
};

struct Turn {
  int tile, rank;  // of queries; whose turn it must be
};

template <class Kind>
struct LongControl {
  int2 masks[Kind::kStages];  // by half of the pair
  Turn turns[Kind::kStages];
  Turn sums[Kind::kTiles];  // what the writers add; tile < 0: no more
  uint64_t full[Kind::kStages], empty[Kind::kStages];
  uint64_t own_full, own_empty;
  uint64_t sum_full[Kind::kTiles], sum_empty[Kind::kTiles];
  Task task, task_of_sum[Kind::kTiles];
};

template <class Kind>
struct LongPlaces {
  uint32_t own, mixed, sums, stages, numbers;
  LongControl<Kind>* control;
  __device__ uint32_t key_tile(int i) const { return own + static_cast<uint32_t>(i * Kind::kBytes); }
  __device__ uint32_t value_tile(int i) const {
    return own + static_cast<uint32_t>(Kind::kTiles * Kind::kBytes + i * Kind::kBytesV);
  }
  __device__ uint32_t ds_tile(int buffer, int keys, int visit) const {
    return mixed + static_cast<uint32_t>(buffer * Kind::kMixedBytes +
                                         (keys * Kind::kTiles + visit) * Panels<64>::kBytes);
  }
  __device__ uint32_t sum(int i) const { return sums + static_cast<uint32_t>(i * Kind::kSumBytes); }
  __device__ uint32_t stage(int i) const { return stages + static_cast<uint32_t>(i * Kind::kStageBytes); }
  __device__ uint32_t numbers_of(int i) const {
    return numbers + static_cast<uint32_t>(i * Kind::kNumbersBytes);
  }
};

template <class Kind>
__device__ void produce(const LongArgs& a, const LongPlaces<Kind>& places) {
  const int lane = threadIdx.x % kWarp;
  LongControl<Kind>& control = *places.control;
  TaskQueue queue(a.work);
  Ring<Kind::kStages> ring;
  const uint32_t own_full = shared_address(&control.own_full);
  for (uint32_t parity = 1;; parity ^= 1) {
    const Task task = queue.next_of_warp();
    wait(shared_address(&control.own_empty), parity);
    if (lane == 0) control.task = task;
    if (task.b < 0) {
      if (lane == 0) arrive(own_full);
      return;
    }
    const int first = Kind::kTiles * task.pair, count = min(Kind::kTiles, a.base.sweep.rows.tiles - first);
    if (lane == 0) {
      arrive_expecting(own_full, static_cast<uint32_t>(count * (Kind::kBytes + Kind::kBytesV)));
      for (int i = 0; i < count; ++i) {
        fetch_tile<Kind::kWidth>(places.key_tile(i), a.k, a.keys, first + i, task.b, task.h, own_full);
        fetch_tile<Kind::kWidthV>(places.value_tile(i), a.v, a.keys, first + i, task.b, task.h, own_full);
      }
    }
    const float2* numbers = a.numbers + row_of_head(a.base, task.b, task.h);
    for_visits(a.base.sweep, task.pair, [&](int tile, int, const int2& masks, int rank) {
      const uint32_t full = shared_address(&control.full[ring.stage]);
      const uint32_t stage = places.stage(ring.stage);
      wait(shared_address(&control.empty[ring.stage]), ring.parity ^ 1);
      if (lane == 0) {
        control.masks[ring.stage] = masks;
        control.turns[ring.stage] = {tile, rank};
        arrive_expecting(full, Kind::kStageBytes);
        fetch_tile<Kind::kWidth>(stage, a.q, a.queries, tile, task.b, task.h, full);
        fetch_tile<Kind::kWidthV>(stage + Kind::kBytes, a.d_o, a.queries, tile, task.b, task.h, full);
      }
      copy_numbers(places.numbers_of(ring.stage), numbers, a.base.sweep.others[0].place(tile), lane);
      arrive_after_copies(full);
      __syncwarp();
      ring.advance();
    });
  }
}

// One lane adds what warpgroup `i` has summed up to dq.
template <class Kind>
__device__ void add_sums(const LongArgs& a, const LongPlaces<Kind>& places, int i) {
  LongControl<Kind>& control = *places.control;
  for (uint32_t parity = 0;; parity ^= 1) {
    wait(shared_address(&control.sum_full[i]), parity);
    const Turn turn = control.sums[i];
    if (turn.tile < 0) return;
    const Task task = control.task_of_sum[i];
    int* const counter =
        a.turns + (static_cast<int64_t>(task.b) * a.base.head_count + task.h) * a.query_tiles + turn.tile;
    wait_for_turn(counter, turn.rank);
    add_tile<Kind::kWidth>(places.sum(i), a.dq, a.queries, turn.tile, task.b, task.h);
    wait_for_added();
    pass_turn(counter);
    arrive(shared_address(&control.sum_empty[i]));
  }
}

template <class Kind>
struct LongConsumer {
  using T = typename Kind::T;
  const LongArgs& a;
  const LongPlaces<Kind>& places;
  int own, warp, lane;
  Ring<Kind::kStages> ring;
  int buffer = 0;
  uint32_t sum_parity = 1;

  __device__ void release(int stage) {
    if (lane == 0) arrive(shared_address(&places.control->empty[stage]));
  }

  __device__ void store_gradients(const uint32_t (&ds)[kRows / 16][4], uint32_t tile) {
#pragma unroll
    for (int step = 0; step < kRows / 16; ++step)
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const uint32_t at =
            Panels<64>::address(tile, 16 * warp + 8 * (part % 2) + lane / 4, 2 * step + part / 2) +
            static_cast<uint32_t>(4 * (lane % 4));
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(ds[step][part]) : "memory");
      }
  }

  // Leaves dq of a visited tile where the TMA reads it: panels of 32 columns of f32.
  __device__ void store_sum(const float (&dq)[Kind::kWidth / 8][4]) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < Kind::kWidth / 8; ++j)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = 16 * warp + 8 * r + g, chunk = (2 * j + t / 2) % 8;
        const uint32_t at = places.sum(own) + static_cast<uint32_t>(j / 4 * kRows * 128 + row * 128 +
                                                                    ((chunk ^ (row & 7)) << 4) + 8 * (t % 2));
        asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(dq[j][2 * r] * a.base.scale),
                     "f"(dq[j][2 * r + 1] * a.base.scale)
                     : "memory");
      }
  }

  __device__ void serve(const Task& task) {
    const uint32_t keys = uniform(places.key_tile(own)), values = uniform(places.value_tile(own));
    const float scale = a.base.scale * kLog2E;
    float dk[Kind::kWidth / 8][4] = {}, dv[Kind::kWidthV / 8][4] = {};
    pin(dk), pin(dv);
    for (int left = task.visits; left > 0; left -= Kind::kTiles) {
      const int count = min(left, Kind::kTiles);
      int2 masks[Kind::kTiles] = {{kAbsent, kAbsent}, {kAbsent, kAbsent}};
      Turn turn{-1, 0};
      int stages[Kind::kTiles] = {};
#pragma unroll
      for (int i = 0; i < Kind::kTiles; ++i) {
        if (!__any_sync(0xffffffffu, i < count)) continue;
        const int stage = stages[i] = ring.stage;
        wait(shared_address(&places.control->full[stage]), ring.parity);
        ring.advance();
        masks[i] = places.control->masks[stage];
        if (i == own) turn = places.control->turns[stage];
        const int mask = own == 0 ? masks[i].x : masks[i].y;
        if (!__any_sync(0xffffffffu, mask != kAbsent)) continue;
        const uint32_t visited = uniform(places.stage(stage));
        const MaskWords words = mask_words<false>(a.base.masks, mask, warp, lane);
        float s[kRows / 8][4], dp[kRows / 8][4];
        uint32_t weights[kRows / 16][4], ds[kRows / 16][4];
        begin_products();
        row_products<T, Kind::kWidth>(s, keys, visited);
        end_products();
        row_products<T, Kind::kWidthV>(dp, values, visited + Kind::kBytes);
        end_products();
        wait_for_products<1>();
        weigh_by_column(s, places.numbers_of(stage), scale, lane);
        if (mask >= 0) hide(s, words, lane, 0);
        round_weights<T>(weights, s);
        begin_products();
        add_weighted_rows<T, Kind::kWidthV>(dv, weights, visited + Kind::kBytes);
        end_products();
        wait_for_products<1>();
        differentiate_by_column(dp, s, places.numbers_of(stage), lane);
        round_weights<T>(ds, dp);
        store_gradients(ds, places.ds_tile(buffer, own, i));
        begin_products();
        add_weighted_rows<T, Kind::kWidth>(dk, ds, visited);
        end_products();
        wait_for_products<0>();
      }
#pragma unroll
      for (int i = 0; i < Kind::kTiles; ++i)
        if (i < count) release(stages[i]);
      publish_to_async();
      sync_some(1, Kind::kTiles * kWarpgroup);
      if (__any_sync(0xffffffffu, own < count)) {
        float dq[Kind::kWidth / 8][4] = {};
        pin(dq);
        const int2 present = own == 0 ? masks[0] : masks[1];
#pragma unroll
        for (int i = 0; i < Kind::kTiles; ++i)
          if (__any_sync(0xffffffffu, (i == 0 ? present.x : present.y) != kAbsent)) {
            begin_products();
            add_transposed_products<T, Kind::kWidth>(dq, uniform(places.ds_tile(buffer, i, own)),
                                                     uniform(places.key_tile(i)));
            end_products();
            wait_for_products<0>();
          }
        wait(shared_address(&places.control->sum_empty[own]), sum_parity);
        sum_parity ^= 1;
        store_sum(dq);
        publish_to_async();
        sync_some(2 + own, kWarpgroup);
        if (threadIdx.x % kWarpgroup == 0) {
          places.control->sums[own] = turn;
          places.control->task_of_sum[own] = task;
          arrive(shared_address(&places.control->sum_full[own]));
        }
      }
      buffer ^= 1;
    }

    sync_some(1, Kind::kTiles * kWarpgroup);  // all keys have been read
    const TilePlace place = a.base.sweep.rows.place(Kind::kTiles * task.pair + own);
    const float factor[2] = {a.base.scale, a.base.scale}, one[2] = {1, 1};
    write_tile<T, Kind::kWidth>(
        dk, factor, one,
        {a.base.dk.of<T>(task.b, task.h), a.base.dk.position, a.base.dk.width, place, keys, a.add}, warp,
        lane);
    write_tile<T, Kind::kWidthV>(
        dv, one, one,
        {a.base.dv.of<T>(task.b, task.h), a.base.dv.position, a.base.dv.width, place, values, a.add}, warp,
        lane);
    publish_to_async();
    if (lane == 0) arrive(shared_address(&places.control->own_empty));
  }

  __device__ void run() {
    for (uint32_t parity = 0;; parity ^= 1) {
      wait(shared_address(&places.control->own_full), parity);
      const Task task = places.control->task;
      if (task.b < 0) break;
      serve(task);
    }
    wait(shared_address(&places.control->sum_empty[own]), sum_parity);
    if (threadIdx.x % kWarpgroup == 0) {
      places.control->sums[own].tile = -1;
      arrive(shared_address(&places.control->sum_full[own]));
    }
  }
};

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    long_kernel(const __grid_constant__ LongArgs a) {
  extern __shared__ unsigned char raw[];
  LongPlaces<Kind> places;
  places.own = aligned(shared_address(raw));
  places.mixed = places.own + Kind::kOwnBytes;
  places.sums = places.mixed + 2 * Kind::kMixedBytes;
  places.stages = places.sums + Kind::kTiles * Kind::kSumBytes;
  places.numbers = places.stages + Kind::kStages * Kind::kStageBytes;
  places.control = reinterpret_cast<LongControl<Kind>*>(raw + (places.numbers - shared_address(raw)) +
                                                        Kind::kStages * Kind::kNumbersBytes);
  static_assert(sizeof(LongControl<Kind>) <= Kind::kControl);
  LongControl<Kind>& control = *places.control;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Kind::kStages; ++i) {
      init_barrier(shared_address(&control.full[i]), 1 + kWarp);
      init_barrier(shared_address(&control.empty[i]), 4 * Kind::kTiles);
    }
    init_barrier(shared_address(&control.own_full), 1);
    init_barrier(shared_address(&control.own_empty), 4 * Kind::kTiles);
    for (int i = 0; i < Kind::kTiles; ++i) {
      init_barrier(shared_address(&control.sum_full[i]), 1);
      init_barrier(shared_address(&control.sum_empty[i]), 1);
    }
    publish_barriers();
  }
  __syncthreads();
  const int warp = uniform(static_cast<int>(threadIdx.x / kWarp)), lane = threadIdx.x % kWarp;
  if (warp >= 4 * Kind::kTiles) {
    give_registers<kProducerRegisters>();
    const int helper = warp - 4 * Kind::kTiles;
    if (helper == 0) produce<Kind>(a, places);
    if (helper >= 1 && helper <= Kind::kTiles && lane == 0) add_sums<Kind>(a, places, helper - 1);
  } else {
    take_registers<consumer_registers(Kind::kTiles, Kind::kBlocks)>();
    LongConsumer<Kind> consumer{a, places, warp / 4, warp % 4, lane};
    consumer.run();
  }
}

// dq (B, N, H, width) of T = sums (B, H, N, kWidth).
template <class T>
__global__ void round_sums_kernel(const Rows dq, const float* sums, const int* heads, int n, int heads_of_all,
                                  int padded) {
  const int chunks = padded / 8, index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int position = index / chunks, chunk = index - position * chunks;
  const int b = blockIdx.z, h = heads[blockIdx.y];
  if (position >= n || 8 * chunk >= dq.width) return;
  const Eight x = load8(sums + ((int64_t{b} * heads_of_all + h) * n + position) * padded + 8 * chunk);
  store8(dq.of<T>(b, h) + int64_t{position} * dq.position + 8 * chunk, x);
}

}  // namespace

int64_t sums_width(int width, int width_v) {
  const int most = width > width_v ? width : width_v;
  return most <= 32 || width <= 32 ? 32 : 64;
}

bool backward_long(const Round& round, const LongCall& call, const HeadGroup& group) {
  const AttentionArgs& args = call.args;
  return with_tile_widths(call.dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    if constexpr (kWidthV <= 64) {
      using Kind = Long<T, kWidth, kWidthV>;
      LongArgs a;
      a.base = args;
      a.base.sweep = round.keys.sweep;
      a.work = work_of(round, group, call.batch, call.counters);
      a.numbers = call.numbers;
      a.turns = call.turns;
      a.query_tiles = round.keys.sweep.others[0].tiles;
      a.add = call.add_keys;
      a.keys = round.keys.rows, a.queries = round.keys.others[0];
      MapMaker maps(call.dtype, args.n, args.head_count, call.batch);
      const TokenOrder &keys = round.keys.row_order, &queries = round.keys.other_orders[0];
      a.k = maps.make(args.k, kWidth, keys, a.keys), a.v = maps.make(args.v, kWidthV, keys, a.keys);
      a.q = maps.make(args.q, kWidth, queries, a.queries);
      a.d_o = maps.make(args.d_o, kWidthV, queries, a.queries);
      a.dq = maps.make_sums(call.sums, kWidth, queries, a.queries);
      if (!maps.good()) return false;
      const int64_t turns = int64_t{call.batch} * args.head_count * a.query_tiles;
      LONGSTRIDE_CUDA_CHECK(
          cudaMemsetAsync(call.turns, 0, static_cast<size_t>(turns) * sizeof(int), current()));
      launch<Kind>(long_kernel<Kind>, "attention_backward", a);
      return true;
    } else {
      return false;
    }
  });
}

void round_sums(const LongCall& call, const HeadGroup& group) {
  const AttentionArgs& args = call.args;
  const auto padded = static_cast<int>(sums_width(args.q.width, args.v.width));
  constexpr int kThreads = 256;
  const dim3 grid(static_cast<unsigned>(ceil_div(int64_t{args.n} * padded / 8, kThreads)),
                  static_cast<unsigned>(group.head_count), static_cast<unsigned>(call.batch));
  if (call.dtype == DType::f16)
    round_sums_kernel<__half>
        <<<grid, kThreads, 0, current()>>>(args.dq, call.sums, group.heads, args.n, args.head_count, padded);
  else
    round_sums_kernel<__nv_bfloat16>
        <<<grid, kThreads, 0, current()>>>(args.dq, call.sums, group.heads, args.n, args.head_count, padded);
  check_launch("attention_backward's rounding");
}

}  // namespace longstride::cuda::hopper
