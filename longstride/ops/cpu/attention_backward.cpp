// Attention backward on the CPU. With p = exp(scale s - lse), dp = dO v^T, delta = rowsum(dO o) and ds =
// scale p (dp - delta):
//   dv = p^T dO,   dk = ds^T q,   dq = ds k.
//
// There are two ways, both deterministic for a fixed number of threads. If tensors are f32 and there are
// enough sequences and heads to occupy the threads, one thread owns a sequence and head, and computes all
// three gradients of a tile with five products. Otherwise dq comes from a sweep over query tiles, and dk and
// dv from a sweep over key tiles. That takes seven products, which any number of threads can share. The
// first pass overwrites the gradients, later ones add to them. Scratch: delta (B, H, N), and panels and
// scores of one tile for each thread.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/attention_pairs.h"
#include "longstride/ops/cpu/attention_tile-inl.h"
#include "longstride/ops/cpu/attention_tile.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu {
namespace HWY_NAMESPACE {

using Rows = RowGatherer::Rows<float>;

// Turns scores into weights and d_weights into d_scores, in place. With `kQueryRows`, rows are queries and
// keys lie along lanes; else the other way round. lse and delta are by query; `bits` is the mask by row, or
// null.
template <bool kQueryRows>
HWY_INLINE void weights_and_gradients(float* scores, float* d_weights, int64_t rows, int vectors,
                                      const float* lse, const float* delta, const uint64_t* bits, float scale,
                                      RowGatherer& gatherer) {
  const Lanes d;
  const Vector scales = hn::Set(d, scale);
  for (int64_t row = 0; row < rows; ++row) {
    if (row % 4 == 0) gatherer.step();
    for (int v = 0; v < vectors; ++v) {
      float* score = scores + row * kAttentionTile + v * kLanes;
      float* gradient = d_weights + row * kAttentionTile + v * kLanes;
      const uint64_t allowed = bits ? bits_of_vector(bits[row], v) : ~uint64_t{0};
      if (allowed == 0) {
        hn::Store(hn::Zero(d), d, score);
        hn::Store(hn::Zero(d), d, gradient);
        continue;
      }
      const Vector sums = kQueryRows ? hn::Set(d, lse[row]) : hn::Load(d, lse + v * kLanes);
      const Vector deltas = kQueryRows ? hn::Set(d, delta[row]) : hn::Load(d, delta + v * kLanes);
      Vector weight = exponential(hn::MulSub(hn::Load(d, score), scales, sums));
      Vector change = hn::Mul(hn::Mul(weight, scales), hn::Sub(hn::Load(d, gradient), deltas));
      if (bits && allowed != kAllLanes) {
        const auto mask = lanes_of_bits(allowed);
        weight = hn::IfThenElseZero(mask, weight);
        change = hn::IfThenElseZero(mask, change);
      }
      hn::Store(weight, d, score);
      hn::Store(change, d, gradient);
    }
  }
}

HWY_INLINE int vectors_for(int64_t count) { return static_cast<int>((count + kLanes - 1) / kLanes); }

// scores = rows turned, where `rows` are of one side and `turned` are those of the other side, transposed.
// Each row of scores lies along the lanes of `turned`.
HWY_INLINE void multiply_scores(const float* rows, int64_t padded, int64_t width, int64_t count,
                                const float* turned, int vectors, const uint64_t* bits, float* scores,
                                RowGatherer* gatherer) {
  multiply({.a = rows,
            .a_row = padded,
            .a_depth = 1,
            .b = turned,
            .b_row = kAttentionTile,
            .c = scores,
            .c_row = kAttentionTile,
            .rows = count,
            .depth = width,
            .vectors = vectors,
            .columns_of_row = bits,
            .gatherer = gatherer});
}

void write_sums(const BackwardTask& task, QuerySums::Tile& sums) {
  if (sums.index < 0) return;
  write_rows(sums.dq, padded_width(task.q.width), sums.queries, sums.write, task.dq);
  sums.index = -1;
}

// The sums of a visit's queries. They begin at zero if the pass meets the queries for the first time, or if
// the sums were written in between.
HWY_INLINE float* sums_of(const BackwardTask& task, const Visit& visit, QuerySums& all) {
  QuerySums::Tile* oldest = &all.tiles[0];
  for (QuerySums::Tile& sums : all.tiles) {
    if (sums.index == visit.index) {
      sums.used = ++all.clock;
      return sums.dq;
    }
    if (sums.used < oldest->used) oldest = &sums;
  }
  write_sums(task, *oldest);
  oldest->index = visit.index, oldest->used = ++all.clock, oldest->queries = visit.tile;
  oldest->write = task.first_of_query(visit.index) ? Write::over : Write::onto;
  std::fill_n(oldest->dq, visit.tile.count * padded_width(task.q.width), 0.0f);
  return oldest->dq;
}

void write_all_sums(const BackwardTask& task, QuerySums& all) {
  for (QuerySums::Tile& sums : all.tiles) write_sums(task, sums);
}

// dk and dv of one key tile in one pass. Unless `sums` is null, also adds dq of the queries that look at it.
// `next` is the task that this thread takes next, or null.
void backward_key_tile(const BackwardTask& task, const BackwardTask* next, QuerySums* sums,
                       const TileScratch& scratch, RowGatherer& gatherer) {
  const TilePositions keys = task.keys();
  const int vectors = vectors_for(keys.count);
  const int64_t padded = padded_width(task.q.width), v_padded = padded_width(task.v.width);
  float *keys_turned = scratch.panel(0), *values_turned = scratch.panel(1);
  float *dk = scratch.panel(2), *dv = scratch.panel(3);
  float *scores = scratch.scores(0), *d_weights = scratch.scores(1);
  float *lse = scratch.values(0), *delta = scratch.values(1);

  if (!gatherer.has(task.index)) request_task<WalkOverQueries>(gatherer, task);
  std::fill_n(dk, keys.count * padded, 0.0f);
  std::fill_n(dv, keys.count * v_padded, 0.0f);
  gatherer.finish();
  const float* key_rows = gatherer.rows<float>(stream::kKeys).half[0];
  transpose(key_rows, keys.count, padded, keys_turned);
  transpose(gatherer.rows<float>(stream::kValues).half[0], keys.count, v_padded, values_turned);

  const auto differentiate = [&](const Visit& visit, const Rows& of_queries, const Rows& of_d_o) HWY_ATTR {
    const TilePositions& queries = visit.tile;
    const float *query_rows = of_queries.half[0], *d_o_rows = of_d_o.half[0];
    const uint64_t* by_query = visit.mask ? visit.mask->rows.data() : nullptr;
    const uint64_t* by_key = visit.mask ? visit.mask->columns.data() : nullptr;
    gather_values(task.lse, queries, lse);
    gather_values(task.delta, queries, delta);
    multiply_scores(query_rows, padded, task.q.width, queries.count, keys_turned, vectors, by_query, scores,
                    &gatherer);
    multiply_scores(d_o_rows, v_padded, task.v.width, queries.count, values_turned, vectors, by_query,
                    d_weights, &gatherer);
    weights_and_gradients<true>(scores, d_weights, queries.count, vectors, lse, delta, by_query, task.scale,
                                gatherer);
    multiply({.a = scores,
              .a_row = 1,
              .a_depth = kAttentionTile,
              .b = d_o_rows,
              .b_row = v_padded,
              .c = dv,
              .c_row = v_padded,
              .rows = keys.count,
              .depth = queries.count,
              .vectors = vectors_for(v_padded),
              .sum = Sum::onto,
              .depths_of_row = by_key,
              .gatherer = &gatherer});
    multiply({.a = d_weights,
              .a_row = 1,
              .a_depth = kAttentionTile,
              .b = query_rows,
              .b_row = padded,
              .c = dk,
              .c_row = padded,
              .rows = keys.count,
              .depth = queries.count,
              .vectors = vectors_for(padded),
              .sum = Sum::onto,
              .depths_of_row = by_key,
              .gatherer = &gatherer});
    if (sums) {
      multiply({.a = d_weights,
                .a_row = kAttentionTile,
                .a_depth = 1,
                .b = key_rows,
                .b_row = padded,
                .c = sums_of(task, visit, *sums),
                .c_row = padded,
                .rows = queries.count,
                .depth = keys.count,
                .vectors = vectors_for(padded),
                .sum = Sum::onto,
                .depths_of_row = by_query,
                .gatherer = &gatherer});
    }
  };
  for_visits<WalkOverQueries, float>(gatherer, task, next, differentiate);
  const Write write = task.pass == 0 ? Write::over : Write::onto;
  write_rows(dk, padded, keys, write, task.dk);
  write_rows(dv, v_padded, keys, write, task.dv);
}

// dq of one query tile from all passes that share it.
void backward_query_tile(const BackwardTask& task, const BackwardTask* next, const TileScratch& scratch,
                         RowGatherer& gatherer) {
  const TilePositions queries = task.queries();
  const int vectors = vectors_for(queries.count);
  const int64_t padded = padded_width(task.q.width), v_padded = padded_width(task.v.width);
  float *queries_turned = scratch.panel(0), *d_o_turned = scratch.panel(1), *dq = scratch.panel(2);
  float *scores = scratch.scores(0), *d_weights = scratch.scores(1);
  float *lse = scratch.values(0), *delta = scratch.values(1);

  if (!gatherer.has(task.index)) request_task<WalkOverKeys>(gatherer, task);
  gather_values(task.lse, queries, lse);
  gather_values(task.delta, queries, delta);
  std::fill_n(dq, queries.count * padded, 0.0f);
  gatherer.finish();
  transpose(gatherer.rows<float>(stream::kQueries).half[0], queries.count, padded, queries_turned);
  transpose(gatherer.rows<float>(stream::kGradients).half[0], queries.count, v_padded, d_o_turned);

  const auto differentiate = [&](const Visit& visit, const Rows& of_keys, const Rows& of_values) HWY_ATTR {
    const TilePositions& keys = visit.tile;
    const float *key_rows = of_keys.half[0], *value_rows = of_values.half[0];
    const uint64_t* by_query = visit.mask ? visit.mask->rows.data() : nullptr;
    const uint64_t* by_key = visit.mask ? visit.mask->columns.data() : nullptr;
    multiply_scores(key_rows, padded, task.q.width, keys.count, queries_turned, vectors, by_key, scores,
                    &gatherer);
    multiply_scores(value_rows, v_padded, task.v.width, keys.count, d_o_turned, vectors, by_key, d_weights,
                    &gatherer);
    weights_and_gradients<false>(scores, d_weights, keys.count, vectors, lse, delta, by_key, task.scale,
                                 gatherer);
    multiply({.a = d_weights,
              .a_row = 1,
              .a_depth = kAttentionTile,
              .b = key_rows,
              .b_row = padded,
              .c = dq,
              .c_row = padded,
              .rows = queries.count,
              .depth = keys.count,
              .vectors = vectors_for(padded),
              .sum = Sum::onto,
              .depths_of_row = by_query,
              .gatherer = &gatherer});
  };
  for_visits<WalkOverKeys, float>(gatherer, task, next, differentiate);
  write_rows(dq, padded, queries, task.pass == 0 ? Write::over : Write::onto, task.dq);
}

// delta of positions [begin, end): the dot product of o and its gradient.
void dot_rows(const BackwardTask& task, int64_t begin, int64_t end) {
  const Lanes d;
  const auto dot = [&](const auto& load) HWY_ATTR {
    for (int64_t i = begin; i < end; ++i) {
      Vector sums = hn::Zero(d);
      int64_t j = 0;
      for (; j + kLanes <= task.o.width; j += kLanes)
        sums = hn::MulAdd(load(d, task.o, i, j), load(d, task.d_o, i, j), sums);
      const hn::CappedTag<float, 1> one;
      float rest = 0;
      for (; j < task.o.width; ++j)
        rest += hn::GetLane(hn::Mul(load(one, task.o, i, j), load(one, task.d_o, i, j)));
      task.delta[i] = hn::GetLane(hn::SumOfLanes(d, sums)) + rest;
    }
  };
  if (task.o.dtype == DType::f32)
    dot([](auto tag, const HeadRows& rows, int64_t i, int64_t j)
            HWY_ATTR { return hn::LoadU(tag, rows.f32(i) + j); });
  else
    dot([](auto tag, const HeadRows& rows, int64_t i, int64_t j) HWY_ATTR {
      const hn::Rebind<uint16_t, decltype(tag)> d16;
      const hn::Rebind<uint32_t, decltype(tag)> d32;
      return hn::BitCast(tag, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, rows.bf16(i) + j))));
    });
}

}  // namespace HWY_NAMESPACE
}  // namespace longstride::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(backward_key_tile);
HWY_EXPORT(backward_query_tile);
HWY_EXPORT(write_all_sums);
HWY_EXPORT(dot_rows);

namespace {

// More than the tiles and passes of any head, so that tasks of all heads have indices of their own.
constexpr int64_t kMostTasksOfHead = int64_t{1} << 40;

// Rows that one task prepares.
constexpr int64_t kRowsPerTask = 256;

void fill_zero(const HeadRows& rows, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) std::memset(rows.row(i), 0, rows.width * size_of(rows.dtype));
}

// Gradients that the first pass does not overwrite begin at zero: those of keys outside its order, or all if
// there is no pass.
void prepare_rows(const BackwardTask& task, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(dot_rows)(task, begin, end);
  const bool none = task.plan->passes.empty();
  if (none) fill_zero(task.dq, begin, end);
  if (!none && task.plan->passes[0].keys.order.kind != TokenOrder::Kind::summary) return;
  fill_zero(task.dk, begin, end);
  fill_zero(task.dv, begin, end);
}

// In the first pass dq is overwritten by the first key tile that a query tile meets. Some query tiles meet
// none.
void zero_unvisited_queries(const BackwardTask& task) {
  if (task.plan->passes.empty()) return;
  const Pass& pass = task.plan->passes[0];
  for (int64_t tile = 0; tile < pass.queries.count(); ++tile) {
    if (!pass.rows.of(tile).empty()) continue;
    const TilePositions queries(pass.queries, tile);
    for (int64_t i = 0; i < queries.count; ++i)
      if (queries.position[i] >= 0) fill_zero(task.dq, queries.position[i], queries.position[i] + 1);
  }
}

// Whether whole heads keep the threads busy for long enough, so that five products win against seven.
// Gradients in bf16 are not summed over visits in memory, so there dq gets a sweep of its own.
bool one_thread_a_head(DType dtype, int64_t heads_of_all_sequences, int64_t threads) {
  const int64_t rounds = (heads_of_all_sequences + threads - 1) / threads;
  return dtype == DType::f32 && heads_of_all_sequences * 7 >= rounds * threads * 5;
}

}  // namespace

template <>
void compute(const OpContext& context, const AttentionBackward& call) {
  const AttentionPlan& plan = call.plan;
  const AttentionTensors& t = call.t;
  const AttentionGradients& gradients = call.gradients;
  const int64_t batch = t.q.shape[0], heads = t.q.shape[2], width = t.q.shape[3], v_width = t.v.shape[3];
  const Arena::Scope scope(*context.scratch);
  const Tensor delta = context.scratch->allocate(DType::f32, {batch, heads, plan.n});
  const Tensor scratch =
      context.scratch->allocate(DType::u8, {threads(), tile_scratch_bytes(width, v_width)});
  if (context.scratch->is_measuring()) return;
  const int team = team_for(batch * plan.pairs, width + v_width);
  const auto task_of = [&](int64_t b, int64_t h, size_t pass, int64_t tile) {
    const int plan_index = plan.plan_of_head[h];
    return BackwardTask{.plan = &plan.plans[plan_index],
                        .masks = &plan.masks[plan_index],
                        .pass = pass,
                        .tile = tile,
                        .q = head_rows(t.q, b, h),
                        .k = head_rows(t.k, b, h),
                        .v = head_rows(t.v, b, h),
                        .o = head_rows(t.o, b, h),
                        .d_o = head_rows(gradients.d_o, b, h),
                        .dq = head_rows(gradients.dq, b, h),
                        .dk = head_rows(gradients.dk, b, h),
                        .dv = head_rows(gradients.dv, b, h),
                        .lse = head_values(t.lse, b, h),
                        .delta = head_values(delta, b, h),
                        .scale = t.scale,
                        .index = 0};
  };
  // Calls work(task, next, worker) for all tiles that `count` counts; `next` is null at the end.
  const auto for_tasks = [&](size_t pass, const auto& count, const auto& work) {
    const TileTasks tasks(plan, batch, count);
    const auto get = [&](int64_t index, BackwardTask& task) {
      TileTask where;
      if (!tasks.get(index, where)) return false;
      task = task_of(where.batch, where.head, pass, where.tile);
      task.index = index;
      return true;
    };
    parallel_region(tasks.size(), team, [&](LoopItems& items) {
      Worker worker(scratch, items.thread(), t.q.dtype, width, v_width);
      for (int64_t index; items.next(index);) {
        BackwardTask task, next;
        if (get(index, task)) work(task, get(index + 1, next) ? &next : nullptr, worker);
      }
    });
  };

  for_tasks(
      0, [](const Plan& p) { return (p.n + kRowsPerTask - 1) / kRowsPerTask; },
      [&](const BackwardTask& task, const BackwardTask*, Worker&) {
        prepare_rows(task, task.tile * kRowsPerTask, std::min((task.tile + 1) * kRowsPerTask, plan.n));
      });

  if (one_thread_a_head(t.q.dtype, batch * heads, threads())) {
    parallel_region(batch * heads, team, [&](LoopItems& items) {
      Worker worker(scratch, items.thread(), t.q.dtype, width, v_width);
      for (int64_t index; items.next(index);) {
        BackwardTask task = task_of(index / heads, index % heads, 0, 0);
        zero_unvisited_queries(task);
        task.index = index * kMostTasksOfHead;
        QuerySums sums(worker.tile_scratch);
        for (; task.pass < task.plan->passes.size(); ++task.pass) {
          const int64_t tiles = task.plan->passes[task.pass].keys.count();
          for (task.tile = 0; task.tile < tiles; ++task.tile, ++task.index) {
            BackwardTask next = task;
            ++next.tile, ++next.index;
            HWY_DYNAMIC_DISPATCH(backward_key_tile)
            (task, next.tile < tiles ? &next : nullptr, &sums, worker.tile_scratch, worker.gatherer);
          }
          HWY_DYNAMIC_DISPATCH(write_all_sums)(task, sums);
        }
      }
    });
    return;
  }
  for (size_t pass = 0; pass < most_passes(plan); ++pass) {
    for_tasks(
        pass,
        [pass](const Plan& p) {
          return pass < p.passes.size() && leads(p, pass) ? p.passes[pass].queries.count() : 0;
        },
        [&](const BackwardTask& task, const BackwardTask* next, Worker& worker) {
          if (worker.pairs)
            pair_backward_query_tile(task, next, worker.memory, worker.gatherer);
          else
            HWY_DYNAMIC_DISPATCH(backward_query_tile)
          (task, next, worker.tile_scratch, worker.gatherer);
        });
    for_tasks(
        pass, [pass](const Plan& p) { return pass < p.passes.size() ? p.passes[pass].keys.count() : 0; },
        [&](const BackwardTask& task, const BackwardTask* next, Worker& worker) {
          if (worker.pairs)
            pair_backward_key_tile(task, next, worker.memory, worker.gatherer);
          else
            HWY_DYNAMIC_DISPATCH(backward_key_tile)
          (task, next, nullptr, worker.tile_scratch, worker.gatherer);
        });
  }
}

// A CPU reads the plan itself.
template <>
void compute(const OpContext&, const ListTiles& t) {
  int64_t bytes = 0;
  for (const Plan& plan : t.plan.plans)
    for (const Pass& pass : plan.passes)
      for (const TileLists* lists : {&pass.rows, &pass.columns})
        bytes += static_cast<int64_t>(lists->offsets.capacity() * sizeof(int64_t) +
                                      lists->runs.capacity() * sizeof(TileRun));
  *t.bytes = bytes;
}

}  // namespace longstride::cpu
#endif
