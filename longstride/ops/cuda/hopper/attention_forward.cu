// Sparse attention forward for Hopper: the formulas of attention_forward_tiles.cu.
//
// A block of threads is a warp that fetches and two warpgroups that compute, each the owner of a tile of
// 64 queries. Tiles of keys and values stream through a ring in shared memory that both warpgroups read. Two
// such blocks share a multiprocessor, and while one is at its softmax the other multiplies; for wide values
// (kAhead) one block has all registers, keeps its queries in them and multiplies the scores of the next visit
// during the softmax of this one. Blocks stay and take one task after the other; the first tiles of the next
// are fetched while the last of this one are at work.
#include "longstride/ops/cuda/hopper/attention.cuh"
#include "longstride/ops/cuda/hopper/attention_launch.cuh"

namespace longstride::cuda::hopper {

namespace {

struct ForwardArgs {
  AttentionArgs base;
  Work work;
  BoxOrder rows, others[kMostBoxPasses];
  TileMaps q, k[kMostBoxPasses], v[kMostBoxPasses];
};

template <class T_, int kWidth_, int kWidthV_>
struct Forward {
  using T = T_;
  static constexpr int kWidth = kWidth_, kWidthV = kWidthV_, kTiles = 2;
  static constexpr int kThreads = (kTiles + 1) * kWarpgroup;
  static constexpr int kBlocks = kWidthV <= 64 ? 2 : 1;  // on a multiprocessor
  static constexpr bool kAhead = kBlocks == 1;  // scores of the next visit; else registers do not suffice
  static constexpr int kQueryBytes =
      Panels<(kWidth > kWidthV ? kWidth : kWidthV)>::kBytes;  // also room for o
  static constexpr int kSlots = 2;                            // tasks whose queries are there
  static constexpr int kAskers = 1;                           // of tasks, in a block
  static constexpr int kKeyBytes = Panels<kWidth>::kBytes, kValueBytes = Panels<kWidthV>::kBytes;
  static constexpr int kStageBytes = kKeyBytes + kValueBytes;
  static constexpr int kStages =
      stages_that_fit(kBlocks, kSlots* kTiles* kQueryBytes, kStageBytes, kControlBytes);
  static constexpr int kSharedBytes =
      kAlignment + kSlots * kTiles * kQueryBytes + kStages * kStageBytes + kControlBytes;
};

template <class Kind>
struct ForwardControl {
  int2 masks[Kind::kStages];  // by half of the pair
  uint64_t full[Kind::kStages], empty[Kind::kStages];
  uint64_t queries_full[Kind::kSlots], queries_empty[Kind::kSlots];
  Task tasks[Kind::kSlots];
};

// The producer's warp, of which one lane does the work: values that all lanes hold alike cost few registers.
template <class Kind>
__device__ void produce(const ForwardArgs& a, ForwardControl<Kind>& control, uint32_t queries,
                        uint32_t stages) {
  const bool leads = threadIdx.x % kWarp == 0;
  TaskQueue queue(a.work, blockIdx.x, gridDim.x);
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;
  for (;;) {
    const Task task = queue.next_of_warp();
    const uint32_t queries_full = shared_address(&control.queries_full[slots.stage]);
    wait(shared_address(&control.queries_empty[slots.stage]), slots.parity ^ 1);
    if (leads) control.tasks[slots.stage] = task;
    if (task.b < 0) {
      if (leads) arrive(queries_full);
      return;
    }
    const int first = Kind::kTiles * task.pair, count = min(Kind::kTiles, a.base.sweep.rows.tiles - first);
    if (leads) {
      arrive_expecting(queries_full, static_cast<uint32_t>(count * Panels<Kind::kWidth>::kBytes));
      for (int i = 0; i < count; ++i)
        fetch_tile<Kind::kWidth>(
            queries + static_cast<uint32_t>((slots.stage * Kind::kTiles + i) * Kind::kQueryBytes), a.q,
            a.rows, first + i, task.b, task.h, queries_full);
    }
    for_visits(a.base.sweep, task.pair, false, [&](int tile, int pass, const int2& masks) {
      const uint32_t full = shared_address(&control.full[ring.stage]);
      const uint32_t keys = stages + static_cast<uint32_t>(ring.stage * Kind::kStageBytes);
      wait(shared_address(&control.empty[ring.stage]), ring.parity ^ 1);
      if (leads) {
        control.masks[ring.stage] = masks;
        arrive_expecting(full, Kind::kStageBytes);
        fetch_tile<Kind::kWidth>(keys, a.k[pass], a.others[pass], tile, task.b, task.h, full);
        fetch_tile<Kind::kWidthV>(keys + Kind::kKeyBytes, a.v[pass], a.others[pass], tile, task.b, task.h,
                                  full);
      }
      __syncwarp();
      ring.advance();
    });
    slots.advance();
  }
}

// The softmax so far of a thread's two rows.
struct Running {
  float highest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};
};

// Turns scores into weights relative to the highest so far; returns whether a maximum moved, and by what
// factor earlier sums shrink.
__device__ inline bool soften(float (&s)[kRows / 8][4], Running& running, float (&shrink)[2], float scale) {
  bool shrinks = false;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most[2] = {running.highest[r], s[0][2 * r]};
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      most[0] = fmaxf(most[0], s[j][2 * r]);
      most[1] = fmaxf(most[1], s[j][2 * r + 1]);
    }
    most[0] = fmaxf(most[0], most[1]);
    most[0] = fmaxf(most[0], __shfl_xor_sync(0xffffffffu, most[0], 1));
    most[0] = fmaxf(most[0], __shfl_xor_sync(0xffffffffu, most[0], 2));
    // A row without keys so far has no maximum to subtract.
    const float from = most[0] == -INFINITY ? 0.0f : most[0] * scale;
    shrink[r] = exp2_fast(running.highest[r] * scale - from);
    shrinks |= most[0] > running.highest[r];
    running.highest[r] = most[0];
    float added[2] = {};
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& weight = s[j][2 * r + e];
        weight = exp2_fast(fmaf(weight, scale, -from));
        added[e] += weight;
      }
    running.sum[r] = running.sum[r] * shrink[r] + (added[0] + added[1]);
  }
  return shrinks;
}

template <class Kind>
__device__ void consume(const ForwardArgs& a, ForwardControl<Kind>& control, uint32_t queries,
                        uint32_t stages) {
  using T = typename Kind::T;
  constexpr int kColumns = Kind::kWidthV / 8;
  const int own = uniform(static_cast<int>(threadIdx.x / kWarpgroup)), warp = threadIdx.x / kWarp % 4,
            lane = threadIdx.x % kWarp;
  const int g = lane / 4, t = lane % 4;
  const float scale = a.base.scale * kLog2E;
  Ring<Kind::kStages> ring;
  Ring<Kind::kSlots> slots;
  const auto release = [&](int stage) {
    __syncwarp();
    arrive_of_warp(shared_address(&control.empty[stage]), lane);
  };

  for (;; slots.advance()) {
    wait(shared_address(&control.queries_full[slots.stage]), slots.parity);
    const Task task = control.tasks[slots.stage];
    if (task.b < 0) return;
    const uint32_t tile =
        uniform(queries + static_cast<uint32_t>((slots.stage * Kind::kTiles + own) * Kind::kQueryBytes));
    int left = task.visits;
    // Goes on to the next visit that this warpgroup takes part in; kAbsent: there is none.
    const auto next_mask = [&] {
      for (; left > 0; --left) {
        wait(shared_address(&control.full[ring.stage]), ring.parity);
        const int mask = reinterpret_cast<const int*>(&control.masks[ring.stage])[own];
        if (mask != kAbsent) return mask;
        release(ring.stage);
        ring.advance();
      }
      return kAbsent;
    };

    const auto written = [&] {
      return WrittenTile<T>{a.base.o.of<T>(task.b, task.h),
                            a.base.o.position,
                            a.base.o.width,
                            a.base.sweep.rows.place(Kind::kTiles * task.pair + own),
                            tile,
                            a.base.add};
    };
    if (a.base.add) prefetch_tile<Kind::kWidthV>(written(), warp, lane);
    Running running;
    float o[kColumns][4] = {}, s[kRows / 8][4];
    int mask = next_mask();
    const bool any_visit =
        __any_sync(0xffffffffu, mask != kAbsent);  // the compiler knows votes to be uniform
    // Where the tiles of a visit lie.
    const auto keys_of = [&](int stage) {
      return uniform(stages + static_cast<uint32_t>(stage * Kind::kStageBytes));
    };
    uint32_t keys = keys_of(ring.stage);
    const auto words_of = [&](int of_visit) { return mask_words<true>(a.base.masks, of_visit, warp, lane); };
    const auto weigh = [&](float(&scores)[kRows / 8][4], int of_visit, const MaskWords& words,
                           float(&shrink)[2]) {
      if (of_visit >= 0) hide(scores, words, lane, -INFINITY);
      return __any_sync(0xffffffffu, soften(scores, running, shrink, scale)) != 0;
    };
    // Adds the values of a visit, weighed.
    const auto add_values = [&](const float(&weights)[kRows / 8][4], bool shrinks, const float(&shrink)[2],
                                uint32_t values) {
      // Maxima settle early: most tiles leave them as they are.
      if (shrinks) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) o[j][e] *= shrink[e / 2];
      }
      uint32_t rounded[kRows / 16][4];
      round_weights<T>(rounded, weights);
      begin_products();
      add_weighted_rows<T, Kind::kWidthV>(o, rounded, values);
      end_products();
    };
    if constexpr (Kind::kAhead) {
      if (any_visit) {
        uint32_t q[Kind::kWidth / 16][4];
        float other[kRows / 8][4];
        load_rows<Kind::kWidth>(q, tile, warp, lane);
        // The visit whose scores are in registers, and the stage before it, whose values may still be read.
        int mask_now = mask, stage_now = ring.stage, last = -1;
        uint32_t values = 0;
        MaskWords words = words_of(mask);
        const auto multiply_queries = [&](float(&scores)[kRows / 8][4]) {
          begin_products();
          row_products<T, Kind::kWidth>(scores, q, keys);
          end_products();
        };
        const auto advance = [&] {
          mask_now = mask, stage_now = ring.stage;
          values = keys + Kind::kKeyBytes;
          --left;
          ring.advance();
          mask = next_mask();
          keys = keys_of(ring.stage);
          return __any_sync(0xffffffffu, mask != kAbsent) != 0;
        };
        const auto serve = [&](float(&now)[kRows / 8][4], float(&next)[kRows / 8][4]) {
          multiply_queries(next);
          float shrink[2];
          const bool shrinks = weigh(now, mask_now, words, shrink);
          words = words_of(mask);
          wait_for_products<1>();
          if (last >= 0) release(last);
          last = stage_now;
          add_values(now, shrinks, shrink, values);
          wait_for_products<1>();
        };
        const auto serve_last = [&](float(&now)[kRows / 8][4]) {
          float shrink[2];
          const bool shrinks = weigh(now, mask_now, words, shrink);
          wait_for_products<0>();
          if (last >= 0) release(last);
          add_values(now, shrinks, shrink, values);
          wait_for_products<0>();
          release(stage_now);
        };
        pin(o);
        multiply_queries(s);
        wait_for_products<0>();
        for (;;) {  // left where nothing is under way
          if (!advance()) {
            serve_last(s);
            break;
          }
          serve(s, other);
          if (!advance()) {
            serve_last(other);
            break;
          }
          serve(other, s);
        }
      }
    } else {
      for (bool more = any_visit; more;) {
        const MaskWords words = words_of(mask);
        begin_products();
        row_products<T, Kind::kWidth>(s, tile, keys);
        end_products();
        wait_for_products<0>();
        float shrink[2];
        const bool shrinks = weigh(s, mask, words, shrink);
        add_values(s, shrinks, shrink, keys + Kind::kKeyBytes);
        wait_for_products<0>();
        release(ring.stage);
        --left;
        ring.advance();
        mask = next_mask();
        keys = keys_of(ring.stage);
        more = __any_sync(0xffffffffu, mask != kAbsent);
      }
    }

    const WrittenTile<T> target = written();
    float* const lse = a.base.lse + row_of_head(a.base, task.b, task.h);
    float factor[2], kept[2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = running.sum[r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int position = target.place.position(16 * warp + 8 * r + g);
      const bool any = running.highest[r] != -INFINITY || total != 0;  // total is NaN where a score was
      float log_sum = any ? running.highest[r] * a.base.scale + logf(total) : -INFINITY;
      factor[r] = any ? 1 / total : 0.0f;
      if (a.base.add) {
        const MergedSum merged = merge_sums(position < a.base.n ? lse[position] : -INFINITY, log_sum);
        factor[r] *= merged.of_fresh;
        kept[r] = merged.of_earlier;
        log_sum = merged.log_sum;
      }
      __syncwarp();
      if (t == 0 && position < a.base.n) lse[position] = log_sum;
    }
    sync_some(1 + own, kWarpgroup);  // o takes the place of the queries
    write_tile<T, Kind::kWidthV>(o, factor, kept, target, warp, lane);
    publish_to_async();
    arrive_of_warp(shared_address(&control.queries_empty[slots.stage]), lane);
  }
}

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocks)
    forward_kernel(const __grid_constant__ ForwardArgs a) {
  extern __shared__ unsigned char raw[];
  const uint32_t queries = aligned(shared_address(raw));
  const uint32_t stages = queries + Kind::kSlots * Kind::kTiles * Kind::kQueryBytes;
  auto& control = *reinterpret_cast<ForwardControl<Kind>*>(raw + (stages - shared_address(raw)) +
                                                           Kind::kStages * Kind::kStageBytes);
  static_assert(sizeof(control) <= kControlBytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Kind::kStages; ++i) {
      init_barrier(shared_address(&control.full[i]), 1);
      init_barrier(shared_address(&control.empty[i]), kArrivalsOfWarp * 4 * Kind::kTiles);
    }
    for (int i = 0; i < Kind::kSlots; ++i) {
      init_barrier(shared_address(&control.queries_full[i]), 1);
      init_barrier(shared_address(&control.queries_empty[i]), kArrivalsOfWarp * 4 * Kind::kTiles);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= Kind::kTiles * kWarpgroup) {
    give_registers<producer_registers(Kind::kTiles, Kind::kBlocks)>();
    if (threadIdx.x / kWarp == 4 * Kind::kTiles) produce<Kind>(a, control, queries, stages);
  } else {
    take_registers<consumer_registers(Kind::kTiles, Kind::kBlocks)>();
    consume<Kind>(a, control, queries, stages);
  }
}

}  // namespace

bool usable() {
  static const bool found = [] {
    int device = 0, major = 0, minor = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
           cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
           major == 9 && minor == 0;
  }();
  return found;
}

bool forward(const Round& round, const ForwardCall& call, const HeadGroup& group) {
  const AttentionArgs& args = call.args;
  return with_tile_widths(call.dtype, args.q.width, args.v.width, [&]<class T, int kWidth, int kWidthV>() {
    ForwardArgs a;
    a.base = args;
    a.base.sweep = round.queries.sweep;
    a.work = work_of(round, group, call.batch, call.counters);
    a.rows = round.queries.rows;
    MapMaker maps(call.dtype, args.head_count, call.batch);
    a.q = maps.make(args.q, kWidth, round.queries.row_order, a.rows);
    for (int p = 0; p < round.queries.passes; ++p) {
      a.others[p] = round.queries.others[p];
      a.k[p] = maps.make(args.k, kWidth, round.queries.other_orders[p], a.others[p]);
      a.v[p] = maps.make(args.v, kWidthV, round.queries.other_orders[p], a.others[p]);
    }
    if (!maps.good()) return false;
    using Kind = Forward<T, kWidth, kWidthV>;
    launch<Kind>(forward_kernel<Kind>, "attention_forward", a);
    return true;
  });
}

}  // namespace longstride::cuda::hopper
