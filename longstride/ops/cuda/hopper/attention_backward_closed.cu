// Sparse attention backward for Hopper where keys and queries live together: every pair of tiles has all its
// keys among its own 128 rows (own blocks and columns of up to 128, and whatever falls into such pairs).
//
//   p = exp(scale q.k - lse[q]),  delta[q] = d_o[q].o[q],  ds = p (d_o[q].v[k] - delta[q])
//   dv = sum_q p d_o,  dk = scale sum_q ds q,  dq = scale sum_k ds k
//
// Such patterns are bound by memory: one block of threads reads q, k, v, o and d_o of its 128 rows once, does
// all five products and writes dq, dk and dv, while the rows of the next task come in. Warpgroup i owns keys
// i; gradients of weights pass through shared memory, and it sums dq of queries i from them. Sums have a
// fixed order: the same bits from run to run.
#include "longstride/ops/cuda/hopper/attention.cuh"
#include "longstride/ops/cuda/hopper/attention_launch.cuh"

namespace longstride::cuda::hopper {

namespace {

struct ClosedArgs {
  AttentionArgs base;
  Work work;
  BoxOrder rows;
  TileMaps q, k, v, o, d_o;
};

template <class T_, int kWidth_, int kWidthV_>
struct Closed {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_, kTiles = 2;
  static_assert(kWidth <= kWidthV);  // dk is written by way of the place of o
  static constexpr int kThreads = (kTiles + 1) * kWarpgroup, kBlocks = 1, kAskers = 1;
  static constexpr int kBytes = Panels<kWidth>::kBytes, kBytesV = Panels<kWidthV>::kBytes;
  // A slot: q, k, v, o, d_o, each of two tiles.
  static constexpr int kKeys = kTiles * kBytes, kValues = 2 * kKeys, kOutputs = kValues + kTiles * kBytesV;
  static constexpr int kGradients = kOutputs + kTiles * kBytesV, kSlotBytes = kGradients + kTiles * kBytesV;
  static constexpr int kMixedBytes = kTiles * kTiles * Panels<64>::kBytes;  // ds, keys down, queries across
  static constexpr int kRoom = kSharedOfChip - kAlignment - kControlBytes - kMixedBytes;
  static constexpr int kSlots = kRoom / kSlotBytes < 2 ? 1 : 2;
  static constexpr int kControl = 4096;
  static constexpr int kSharedBytes = kAlignment + kSlots * kSlotBytes + kMixedBytes + kControl;
};

template <class Kind>
struct ClosedControl {
  float2 numbers[Kind::kTiles * kRows];                 // of queries: lse * log2 e, delta
  float log_sums[Kind::kSlots][Kind::kTiles * kRows];   // as they come in
  int masks[Kind::kSlots][Kind::kTiles][Kind::kTiles];  // by query and key tile
  uint64_t full[Kind::kSlots], empty[Kind::kSlots];
  Task tasks[Kind::kSlots];
};

// Of a slot that is full: what the TMA brings, and each lane's copies.
constexpr int kArrivals = 1 + kWarp;

template <class Kind>
__device__ void produce(const ClosedArgs& a, ClosedControl<Kind>& control, uint32_t slots_at) {
  const int lane = threadIdx.x % kWarp;
  TaskQueue queue(a.work, blockIdx.x, gridDim.x);
  Ring<Kind::kSlots> slots;
  for (;;) {
    const Task task = queue.next_of_warp();
    const uint32_t full = shared_address(&control.full[slots.stage]);
    wait(shared_address(&control.empty[slots.stage]), slots.parity ^ 1);
    if (lane == 0) control.tasks[slots.stage] = task;
    if (task.b < 0) {
      if (lane == 0) arrive(full, kArrivals);
      return;
    }
    const int first = Kind::kTiles * task.pair, count = min(Kind::kTiles, a.base.sweep.rows.tiles - first);
    if (lane == 0) {
      auto& masks = control.masks[slots.stage];
      for (int i = 0; i < Kind::kTiles * Kind::kTiles; ++i)
        masks[i / Kind::kTiles][i % Kind::kTiles] = kAbsent;
      for_visits(a.base.sweep, task.pair, false, [&](int tile, int, const int2& of_keys) {
        masks[tile - first][0] = of_keys.x;
        masks[tile - first][1] = of_keys.y;
      });
      const uint32_t slot = slots_at + static_cast<uint32_t>(slots.stage * Kind::kSlotBytes);
      arrive_expecting(full, static_cast<uint32_t>(count * (2 * Kind::kBytes + 3 * Kind::kBytesV)));
      for (int i = 0; i < count; ++i) {
        const uint32_t at = slot + static_cast<uint32_t>(i * Kind::kBytes);
        const uint32_t at_v = slot + static_cast<uint32_t>(i * Kind::kBytesV);
        const auto fetch = [&]<int kWidth>(uint32_t to, const TileMaps& maps) {
          fetch_tile<kWidth>(to, maps, a.rows, first + i, task.b, task.h, full);
        };
        fetch.template operator()<Kind::kWidthV>(at_v + Kind::kOutputs, a.o);
        fetch.template operator()<Kind::kWidthV>(at_v + Kind::kGradients, a.d_o);
        fetch.template operator()<Kind::kWidth>(at + Kind::kKeys, a.k);
        fetch.template operator()<Kind::kWidth>(at, a.q);
        fetch.template operator()<Kind::kWidthV>(at_v + Kind::kValues, a.v);
      }
    }
    const float* lse = a.base.lse + row_of_head(a.base, task.b, task.h);
#pragma unroll
    for (int tile = 0; tile < Kind::kTiles; ++tile) {
      const TilePlace place = a.base.sweep.rows.place(first + tile);
#pragma unroll
      for (int i = 0; i < kRows / kWarp; ++i) {
        uint32_t position;
        const bool present = place.find(lane + i * kWarp, position);
        copy4(shared_address(&control.log_sums[slots.stage][tile * kRows + i * kWarp + lane]),
              lse + (present ? position : 0), present);
      }
    }
    arrive_after_copies(full);
    slots.advance();
  }
}

// Two threads a row.
template <class Kind>
__device__ float2 numbers_of_row(uint32_t outputs, uint32_t gradients, int row, int side, float log_sum) {
  using Tile = Panels<Kind::kWidthV>;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < Kind::kWidthV / 16; ++i) {
    const int chunk = 2 * i + side;
    uint4 raw[2];
#pragma unroll
    for (int which = 0; which < 2; ++which)
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(raw[which].x), "=r"(raw[which].y), "=r"(raw[which].z), "=r"(raw[which].w)
                   : "r"(Tile::address(which == 0 ? outputs : gradients, row, chunk)));
    const auto *x = reinterpret_cast<const typename Kind::T*>(&raw[0]),
               *y = reinterpret_cast<const typename Kind::T*>(&raw[1]);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum = fmaf(to_float(x[e]), to_float(y[e]), sum);
  }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  return make_float2(log_sum * kLog2E, sum);
}

template <class Kind>
__device__ void consume(const ClosedArgs& a, ClosedControl<Kind>& control, uint32_t slots_at,
                        uint32_t mixed) {
  using T = typename Kind::T;
  const int own = uniform(static_cast<int>(threadIdx.x / kWarpgroup));
  const int thread = threadIdx.x % kWarpgroup, warp = thread / kWarp, lane = thread % kWarp;
  const int g = lane / 4, t = lane % 4;
  const float scale = a.base.scale * kLog2E;
  const auto ds_tile = [&](int keys, int queries) {
    return uniform(mixed + static_cast<uint32_t>((keys * Kind::kTiles + queries) * Panels<64>::kBytes));
  };
  Ring<Kind::kSlots> slots;
  for (;; slots.advance()) {
    wait(shared_address(&control.full[slots.stage]), slots.parity);
    // Read by the lane that says when the slot is empty again.
    Task task;
    if (lane == 0) task = control.tasks[slots.stage];
    task = of_lane_0(task);
    if (task.b < 0) return;
    const uint32_t slot = uniform(slots_at + static_cast<uint32_t>(slots.stage * Kind::kSlotBytes));
    const uint32_t own_at = static_cast<uint32_t>(own * Kind::kBytes),
                   own_at_v = static_cast<uint32_t>(own * Kind::kBytesV);
    const TilePlace place = a.base.sweep.rows.place(Kind::kTiles * task.pair + own);
    if (place.begin < place.end) {
      const int row = thread / 2;
      const float2 numbers =
          numbers_of_row<Kind>(slot + Kind::kOutputs + own_at_v, slot + Kind::kGradients + own_at_v, row,
                               thread % 2, control.log_sums[slots.stage][own * kRows + row]);
      if (thread % 2 == 0) control.numbers[own * kRows + row] = numbers;
    }
    sync_some(1, Kind::kTiles * kWarpgroup);

    float dk[Kind::kWidth / 8][4] = {}, dv[Kind::kWidthV / 8][4] = {};
    pin(dk), pin(dv);
#pragma unroll 1
    for (int i = 0; i < Kind::kTiles; ++i) {
      const int mask = control.masks[slots.stage][i][own];
      if (!__any_sync(0xffffffffu, mask != kAbsent)) continue;
      const uint32_t queries = slot + static_cast<uint32_t>(i * Kind::kBytes);
      const uint32_t gradients = slot + Kind::kGradients + static_cast<uint32_t>(i * Kind::kBytesV);
      float s[kRows / 8][4], dp[kRows / 8][4];
      uint32_t weights[kRows / 16][4];
      const MaskWords words = mask_words<false>(a.base.masks, mask, warp, lane);
      begin_products();
      row_products<T, Kind::kWidth>(s, slot + Kind::kKeys + own_at, queries);
      end_products();
      row_products<T, Kind::kWidthV>(dp, slot + Kind::kValues + own_at_v, gradients);
      end_products();
      wait_for_products<1>();
      const uint32_t numbers = shared_address(&control.numbers[i * kRows]);
      weigh_by_column(s, numbers, scale, lane);
      if (mask >= 0) hide(s, words, lane, 0);
      round_weights<T>(weights, s);
      wait_for_products<0>();
      begin_products();
      add_weighted_rows<T, Kind::kWidthV>(dv, weights, gradients);
      end_products();
      differentiate_by_column<T>(dp, weights, numbers, lane);
      uint32_t ds[kRows / 16][4];
      round_weights<T>(ds, dp);
      const uint32_t tile = ds_tile(own, i);
#pragma unroll
      for (int step = 0; step < kRows / 16; ++step)
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const uint32_t at = Panels<64>::address(tile, 16 * warp + 8 * (part % 2) + g, 2 * step + part / 2) +
                              static_cast<uint32_t>(4 * t);
          asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(ds[step][part]) : "memory");
        }
      wait_for_products<0>();
      begin_products();
      add_weighted_rows<T, Kind::kWidth>(dk, ds, queries);
      end_products();
      wait_for_products<0>();
    }
    publish_to_async();
    sync_some(1, Kind::kTiles * kWarpgroup);

    float dq[Kind::kWidth / 8][4] = {};
    pin(dq);
#pragma unroll 1
    for (int i = 0; i < Kind::kTiles; ++i) {
      if (!__any_sync(0xffffffffu, control.masks[slots.stage][own][i] != kAbsent)) continue;
      begin_products();
      add_transposed_products<T, Kind::kWidth>(dq, ds_tile(i, own),
                                               slot + Kind::kKeys + static_cast<uint32_t>(i * Kind::kBytes));
      end_products();
      wait_for_products<0>();
    }
    const float factor[2] = {a.base.scale, a.base.scale}, one[2] = {1, 1};
    const auto write = [&]<int kWidth>(const float(&d)[kWidth / 8][4], const float(&times)[2], const Rows& to,
                                       uint32_t room) {
      write_tile<T, kWidth>(
          d, times, one, {to.of<T>(task.b, task.h), to.position, to.width, place, room, false}, warp, lane);
    };
    write.template operator()<Kind::kWidthV>(dv, one, a.base.dv, slot + Kind::kValues + own_at_v);
    write.template operator()<Kind::kWidth>(dk, factor, a.base.dk, slot + Kind::kOutputs + own_at_v);
    write.template operator()<Kind::kWidth>(dq, factor, a.base.dq, slot + own_at);
    publish_to_async();
    arrive_of_warp(shared_address(&control.empty[slots.stage]), lane);
    // The next task's numbers and ds take the place of this one's.
    sync_some(1, Kind::kTiles * kWarpgroup);
  }
}

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    closed_kernel(const __grid_constant__ ClosedArgs a) {
  extern __shared__ unsigned char raw[];
  const uint32_t slots = aligned(shared_address(raw)), mixed = slots + Kind::kSlots * Kind::kSlotBytes;
  auto& control =
      *reinterpret_cast<ClosedControl<Kind>*>(raw + (mixed - shared_address(raw)) + Kind::kMixedBytes);
  static_assert(sizeof(control) <= Kind::kControl);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Kind::kSlots; ++i) {
      init_barrier(shared_address(&control.full[i]), kArrivals);
      init_barrier(shared_address(&control.empty[i]), kArrivalsOfWarp * 4 * Kind::kTiles);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= Kind::kTiles * kWarpgroup) {
    give_registers<producer_registers(Kind::kTiles, Kind::kBlocks)>();
    if (threadIdx.x / kWarp == 4 * Kind::kTiles) produce<Kind>(a, control, slots);
  } else {
    take_registers<consumer_registers(Kind::kTiles, Kind::kBlocks)>();
    consume<Kind>(a, control, slots, mixed);
  }
}

}  // namespace

bool backward_closed(const Round& round, const BackwardCall& call, const HeadGroup& group) {
  const AttentionArgs& args = call.args;
  return with_tile_widths(call.dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    using Kind = Closed<T, kWidth, kWidthV>;
    const TokenOrder& order = round.keys.row_order;
    ClosedArgs a;
    a.base = args;
    a.base.sweep = round.keys.sweep;
    a.work = work_of(round, group, call.batch, call.counters);
    a.rows = round.keys.rows;
    MapMaker maps(call.dtype, args.head_count, call.batch);
    a.q = maps.make(args.q, kWidth, order, a.rows), a.k = maps.make(args.k, kWidth, order, a.rows);
    a.v = maps.make(args.v, kWidthV, order, a.rows), a.o = maps.make(args.o, kWidthV, order, a.rows);
    a.d_o = maps.make(args.d_o, kWidthV, order, a.rows);
    if (!maps.good()) return false;
    launch<Kind>(closed_kernel<Kind>, "attention_backward", a);
    return true;
  });
}

}  // namespace longstride::cuda::hopper
