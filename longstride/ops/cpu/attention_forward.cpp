// Attention forward on the CPU: each task is one query tile, with an online softmax (Milakov, Gimelshein,
// 2018; Dao et al., 2022).
//
// Queries lie along vector lanes while scores are computed, s^T = K q^T, so that maxima and sums of the
// softmax never leave their lane; o += p v then reads p^T element by element. Passes with equal query tiles
// are one visit. A pass with another order of queries continues from the o and lse of the earlier passes.
// Each output is written by one task, with keys in the plan's order: the same bits for any number of
// threads. Scratch: panels and scores of one tile for each thread.
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/attention_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/attention_pairs.h"
#include "longstride/ops/cpu/attention_tile-inl.h"
#include "longstride/ops/cpu/attention_tile.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu {
namespace HWY_NAMESPACE {

using Rows = RowGatherer::Rows<float>;

// What a tile of queries has seen so far, for each query.
struct Running {
  float* highest;  // of scale * score
  float* sum;      // of exp(scale * score - highest)
  float* rescale;  // the factor for o as it was before the last tile
  float* o;        // (queries, padded Dv), not divided by sum
};

// scores (keys, kAttentionTile) -> weights in place; `columns` holds the mask's bits by key, or is null in a
// full tile. Keys that a mask excludes get weight zero, whatever their score.
HWY_INLINE void online_softmax(float* scores, int64_t keys, int vectors, const uint64_t* columns, float scale,
                               const Running& running, RowGatherer& gatherer) {
  const Lanes d;
  const Vector scales = hn::Set(d, scale), lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int v = 0; v < vectors; ++v) {
    float* lane = scores + v * kLanes;
    const Vector before = hn::Load(d, running.highest + v * kLanes);
    Vector highest = before;
    if (columns) {
      for (int64_t key = 0; key < keys; ++key) {
        const uint64_t bits = bits_of_vector(columns[key], v);
        if (bits == 0) continue;
        const Vector score = hn::Mul(hn::Load(d, lane + key * kAttentionTile), scales);
        highest =
            hn::Max(highest, bits == kAllLanes ? score : hn::IfThenElse(lanes_of_bits(bits), score, lowest));
      }
    } else {
      Vector other = before;  // two chains hide the latency of max
      for (int64_t key = 0; key + 1 < keys; key += 2) {
        highest = hn::Max(highest, hn::Mul(hn::Load(d, lane + key * kAttentionTile), scales));
        other = hn::Max(other, hn::Mul(hn::Load(d, lane + (key + 1) * kAttentionTile), scales));
      }
      if (keys % 2)
        highest = hn::Max(highest, hn::Mul(hn::Load(d, lane + (keys - 1) * kAttentionTile), scales));
      highest = hn::Max(highest, other);
    }
    // A query that has seen no key yet keeps -inf. Subtracting zero instead of it avoids NaN.
    const Vector origin = hn::IfThenElse(hn::Eq(highest, lowest), hn::Zero(d), highest);
    const Vector rescale = exponential(hn::Sub(before, origin));
    Vector sum = hn::Mul(rescale, hn::Load(d, running.sum + v * kLanes));
    for (int64_t key = 0; key < keys; ++key) {
      float* at = lane + key * kAttentionTile;
      if (key % 16 == 0) gatherer.step();
      const uint64_t bits = columns ? bits_of_vector(columns[key], v) : ~uint64_t{0};
      if (bits == 0) {
        hn::Store(hn::Zero(d), d, at);
        continue;
      }
      Vector weight = exponential(hn::MulSub(hn::Load(d, at), scales, origin));
      if (columns && bits != kAllLanes) weight = hn::IfThenElseZero(lanes_of_bits(bits), weight);
      sum = hn::Add(sum, weight);
      hn::Store(weight, d, at);
    }
    hn::Store(highest, d, running.highest + v * kLanes);
    hn::Store(rescale, d, running.rescale + v * kLanes);
    hn::Store(sum, d, running.sum + v * kLanes);
  }
}

// Begins from nothing, or from what earlier passes have written.
HWY_INLINE void begin_rows(const ForwardTask& task, const TilePositions& queries, const Running& running) {
  const int64_t padded = padded_width(task.v.width);
  std::fill_n(running.highest, kAttentionTile, -std::numeric_limits<float>::infinity());
  std::fill_n(running.sum, kAttentionTile, 0.0f);
  if (task.pass == 0) {
    std::fill_n(running.o, padded_width(queries.count) * padded, 0.0f);
    return;
  }
  gather_rows(task.o, queries, running.o);
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t position = queries.position[i];
    if (position < 0 || std::isinf(task.lse[position])) continue;
    running.highest[i] = task.lse[position];
    running.sum[i] = 1;
  }
}

HWY_INLINE void end_rows(const ForwardTask& task, const TilePositions& queries, const Running& running) {
  const Lanes d;
  const int64_t padded = padded_width(task.v.width);
  const Vector nothing = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < queries.count; i += kLanes) {
    const Vector sum = hn::Load(d, running.sum + i), highest = hn::Load(d, running.highest + i);
    const auto unseen = hn::Eq(sum, hn::Zero(d));
    hn::Store(hn::IfThenElse(unseen, nothing, hn::Add(highest, logarithm(sum))), d, running.highest + i);
    hn::Store(hn::IfThenZeroElse(unseen, hn::Div(hn::Set(d, 1.0f), sum)), d, running.sum + i);
  }
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t position = queries.position[i];
    if (position < 0) continue;
    task.lse[position] = running.highest[i];
    const Vector inverse = hn::Set(d, running.sum[i]);
    for (int64_t j = 0; j < padded; j += kLanes) {
      float* o = running.o + i * padded + j;
      hn::Store(hn::Mul(hn::Load(d, o), inverse), d, o);
    }
  }
  write_rows(running.o, padded, queries, Write::over, task.o);
}

// `next` is the task that this thread takes next, or null.
void forward_tile(const ForwardTask& task, const ForwardTask* next, const TileScratch& scratch,
                  RowGatherer& gatherer) {
  const TilePositions queries = task.queries();
  const int64_t padded = padded_width(task.q.width), v_padded = padded_width(task.v.width);
  const int vectors = static_cast<int>((queries.count + kLanes - 1) / kLanes);
  float *queries_turned = scratch.panel(0), *scores = scratch.scores(0);
  const Running running{scratch.values(0), scratch.values(1), scratch.values(2), scratch.panel(1)};

  if (!gatherer.has(task.index)) request_task<WalkOverKeys>(gatherer, task);
  begin_rows(task, queries, running);
  gatherer.finish();
  transpose(gatherer.rows<float>(stream::kQueries).half[0], queries.count, padded, queries_turned);
  const auto attend = [&](const Visit& visit, const Rows& key_rows, const Rows& value_rows) HWY_ATTR {
    const TilePositions& keys = visit.tile;
    const TileMask* mask = visit.mask;
    multiply({.a = key_rows.half[0],
              .a_row = padded,
              .a_depth = 1,
              .b = queries_turned,
              .b_row = kAttentionTile,
              .c = scores,
              .c_row = kAttentionTile,
              .rows = keys.count,
              .depth = task.q.width,
              .vectors = vectors,
              .columns_of_row = mask ? mask->columns.data() : nullptr,
              .gatherer = &gatherer});
    online_softmax(scores, keys.count, vectors, mask ? mask->columns.data() : nullptr, task.scale, running,
                   gatherer);
    multiply({.a = scores,
              .a_row = 1,
              .a_depth = kAttentionTile,
              .b = value_rows.half[0],
              .b_row = v_padded,
              .c = running.o,
              .c_row = v_padded,
              .rows = queries.count,
              .depth = keys.count,
              .vectors = static_cast<int>(v_padded / kLanes),
              .sum = Sum::onto,
              .row_scale = running.rescale,
              .depths_of_row = mask ? mask->rows.data() : nullptr,
              .gatherer = &gatherer});
  };
  for_visits<WalkOverKeys, float>(gatherer, task, next, attend);
  end_rows(task, queries, running);
}

}  // namespace HWY_NAMESPACE
}  // namespace longstride::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(forward_tile);

namespace {

// A head whose plan has no pass sees nothing.
void fill_unseen(const AttentionPlan& plan, const AttentionTensors& t) {
  for (int64_t b = 0; b < t.q.shape[0]; ++b) {
    for (int64_t h = 0; h < t.q.shape[2]; ++h) {
      if (!plan.head(h).passes.empty()) continue;
      const HeadRows o = head_rows(t.o, b, h);
      for (int64_t i = 0; i < plan.n; ++i) {
        std::memset(o.row(i), 0, o.width * size_of(o.dtype));
        head_values(t.lse, b, h)[i] = -std::numeric_limits<float>::infinity();
      }
    }
  }
}

}  // namespace

template <>
void compute(const OpContext& context, const AttentionForward& call) {
  const AttentionPlan& plan = call.plan;
  const AttentionTensors& t = call.t;
  const Arena::Scope scope(*context.scratch);
  const int64_t width = t.q.shape[3], v_width = t.v.shape[3];
  const Tensor scratch =
      context.scratch->allocate(DType::u8, {threads(), tile_scratch_bytes(width, v_width)});
  if (context.scratch->is_measuring()) return;
  const int team = team_for(t.q.shape[0] * plan.pairs, width + v_width);
  fill_unseen(plan, t);
  for (size_t pass = 0; pass < most_passes(plan); ++pass) {
    const TileTasks tasks(plan, t.q.shape[0], [pass](const Plan& p) {
      return pass < p.passes.size() && leads(p, pass) ? p.passes[pass].queries.count() : 0;
    });
    const auto task_of = [&](int64_t index, ForwardTask& task) {
      TileTask where;
      if (!tasks.get(index, where)) return false;
      const auto [b, h, tile] = where;
      const int plan_index = plan.plan_of_head[h];
      task = {.plan = &plan.plans[plan_index],
              .masks = &plan.masks[plan_index],
              .pass = pass,
              .tile = tile,
              .q = head_rows(t.q, b, h),
              .k = head_rows(t.k, b, h),
              .v = head_rows(t.v, b, h),
              .o = head_rows(t.o, b, h),
              .lse = head_values(t.lse, b, h),
              .scale = t.scale,
              .index = index};
      return true;
    };
    parallel_region(tasks.size(), team, [&](LoopItems& items) {
      Worker worker(scratch, items.thread(), t.q.dtype, width, v_width);
      for (int64_t index; items.next(index);) {
        ForwardTask task, next;
        if (!task_of(index, task)) continue;
        const ForwardTask* following = task_of(index + 1, next) ? &next : nullptr;
        if (worker.pairs)
          pair_forward_tile(task, following, worker.memory, worker.gatherer);
        else
          HWY_DYNAMIC_DISPATCH(forward_tile)
        (task, following, worker.tile_scratch, worker.gatherer);
      }
    });
  }
}

}  // namespace longstride::cpu
#endif
