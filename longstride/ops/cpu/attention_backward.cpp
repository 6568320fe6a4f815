// Attention backward on the CPU. With p = exp(scale s - lse), dp = dO v^T, delta = rowsum(dO o) and ds =
// scale p (dp - delta):
//   dv = p^T dO,   dk = ds^T q,   dq = ds k.
//
// Two ways, both deterministic for a fixed number of threads. Where sequences and heads suffice to occupy the
// threads, one thread owns a sequence and head and gets all three gradients of a tile from five products.
// Else dq comes from a sweep over query tiles and dk, dv from a sweep over key tiles, seven products that any
// number of threads can share. Passes are worked off one after the other and add to the gradients, which
// start at zero. Scratch: delta (B, H, N), and panels and scores of one tile for each thread.
#include <omp.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/attention_tile-inl.h"
#include "longstride/ops/cpu/attention_tile.h"

#ifndef LONGSTRIDE_OPS_CPU_ATTENTION_BACKWARD_HEAD_
#define LONGSTRIDE_OPS_CPU_ATTENTION_BACKWARD_HEAD_
namespace longstride::cpu {

// One sequence and head.
struct BackwardHead {
  const Plan& plan;
  const std::vector<TileMasks>& masks;
  HeadRows q, k, v, o, d_o, dq, dk, dv;
  const float* lse;
  float* delta;
  int64_t width, v_width;
  float scale;
};

}  // namespace longstride::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu {
namespace HWY_NAMESPACE {

// Turns scores into weights and d_weights into d_scores, in place. Rows are queries if `kQueryRows` and keys
// lie along lanes, else the other way round; lse and delta are by query, `bits` the mask by row or null.
template <bool kQueryRows>
HWY_INLINE void weights_and_gradients(float* scores, float* d_weights, int64_t rows, int vectors,
                                      const float* lse, const float* delta, const uint64_t* bits,
                                      float scale) {
  const Lanes d;
  const Vector scales = hn::Set(d, scale);
  for (int64_t row = 0; row < rows; ++row) {
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
      if (bits) {
        const auto mask = lanes_of_bits(allowed);
        weight = hn::IfThenElseZero(mask, weight);
        change = hn::IfThenElseZero(mask, change);
      }
      hn::Store(weight, d, score);
      hn::Store(change, d, gradient);
    }
  }
}

HWY_INLINE void gather_values(const float* from, const TilePositions& tile, float* to) {
  for (int64_t i = 0; i < padded_width(tile.count); ++i)
    to[i] = i < tile.count && tile.position[i] >= 0 ? from[tile.position[i]] : 0;
}

HWY_INLINE void add_rows(const float* from, const TilePositions& tile, int64_t width, const HeadRows& to) {
  const int64_t padded = padded_width(width);
  for (int64_t i = 0; i < tile.count; ++i, from += padded) {
    if (tile.position[i] < 0) continue;
    const float* HWY_RESTRICT source = from;
    float* HWY_RESTRICT target = to.row(tile.position[i]);
    for (int64_t j = 0; j < width; ++j) target[j] += source[j];
  }
}

HWY_INLINE int vectors_for(int64_t count) { return static_cast<int>((count + kLanes - 1) / kLanes); }

// Rows of scores along the lanes of `turned`: scores = rows turned, for one side's rows and the other side's,
// transposed.
HWY_INLINE void multiply_scores(const float* rows, int64_t padded, int64_t width, int64_t count,
                                const float* turned, int vectors, const uint64_t* bits, float* scores,
                                const RowsAhead& ahead) {
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
            .ahead = ahead});
}

// dk and dv of one key tile in one pass, and dq of the queries that look at it if `with_queries`.
void backward_key_tile(const BackwardHead& head, size_t pass_index, int64_t key_tile, bool with_queries,
                       const TileScratch& scratch) {
  const Pass& pass = head.plan.passes[pass_index];
  const TileMasks& masks = head.masks[pass_index];
  const auto runs = pass.columns.of(key_tile);
  if (runs.empty()) return;
  const TilePositions keys(pass.keys, key_tile);
  const int vectors = vectors_for(keys.count);
  const int64_t padded = padded_width(head.width), v_padded = padded_width(head.v_width);
  float *key_rows = scratch.panel(0), *keys_turned = scratch.panel(1), *values_turned = scratch.panel(2);
  float *query_rows = scratch.panel(3), *d_o_rows = scratch.panel(4);
  float *dk = scratch.panel(5), *dv = scratch.panel(6), *dq = scratch.panel(7);
  float *scores = scratch.scores(0), *d_weights = scratch.scores(1);
  float *lse = scratch.values(0), *delta = scratch.values(1);

  gather_rows(head.k, keys, head.width, key_rows);
  transpose(key_rows, keys.count, padded, keys_turned);
  float* value_rows = d_o_rows;  // needed only until it is turned
  gather_rows(head.v, keys, head.v_width, value_rows);
  transpose(value_rows, keys.count, v_padded, values_turned);
  std::fill_n(dk, keys.count * padded, 0.0f);
  std::fill_n(dv, keys.count * v_padded, 0.0f);

  const int32_t* mask_id = masks.of_column(key_tile).data();
  TilePositions queries(pass.queries, runs[0].begin);
  for (size_t run = 0; run < runs.size(); ++run) {
    for (int32_t query_tile = runs[run].begin; query_tile < runs[run].end; ++query_tile) {
      const TileMask* mask = runs[run].full ? nullptr : &masks.masks[*mask_id++];
      const uint64_t* by_query = mask ? mask->rows.data() : nullptr;
      const uint64_t* by_key = mask ? mask->columns.data() : nullptr;
      const TilePositions next_queries = tile_after(pass.queries, runs, run, query_tile);
      gather_rows(head.q, queries, head.width, query_rows);
      gather_rows(head.d_o, queries, head.v_width, d_o_rows);
      gather_values(head.lse, queries, lse);
      gather_values(head.delta, queries, delta);
      multiply_scores(query_rows, padded, head.width, queries.count, keys_turned, vectors, by_query, scores,
                      {head.q, &next_queries, head.width});
      multiply_scores(d_o_rows, v_padded, head.v_width, queries.count, values_turned, vectors, by_query,
                      d_weights, {head.d_o, &next_queries, head.v_width});
      weights_and_gradients<true>(scores, d_weights, queries.count, vectors, lse, delta, by_query,
                                  head.scale);
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
                .depths_of_row = by_key});
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
                .ahead = {head.dq, with_queries ? &queries : nullptr, head.width}});
      if (with_queries) {
        multiply({.a = d_weights,
                  .a_row = kAttentionTile,
                  .a_depth = 1,
                  .b = key_rows,
                  .b_row = padded,
                  .c = dq,
                  .c_row = padded,
                  .rows = queries.count,
                  .depth = keys.count,
                  .vectors = vectors_for(padded),
                  .depths_of_row = by_query});
        add_rows(dq, queries, head.width, head.dq);
      }
      queries = next_queries;
    }
  }
  add_rows(dk, keys, head.width, head.dk);
  add_rows(dv, keys, head.v_width, head.dv);
}

// dq of one query tile from all passes that share it.
void backward_query_tile(const BackwardHead& head, size_t leader_index, int64_t query_tile,
                         const TileScratch& scratch) {
  const Pass& leader = head.plan.passes[leader_index];
  const TilePositions queries(leader.queries, query_tile);
  const int vectors = vectors_for(queries.count);
  const int64_t padded = padded_width(head.width), v_padded = padded_width(head.v_width);
  float *rows = scratch.panel(0), *queries_turned = scratch.panel(1), *d_o_turned = scratch.panel(2);
  float *key_rows = scratch.panel(3), *value_rows = scratch.panel(4), *dq = scratch.panel(5);
  float *scores = scratch.scores(0), *d_weights = scratch.scores(1);
  float *lse = scratch.values(0), *delta = scratch.values(1);

  gather_rows(head.q, queries, head.width, rows);
  transpose(rows, queries.count, padded, queries_turned);
  gather_rows(head.d_o, queries, head.v_width, rows);
  transpose(rows, queries.count, v_padded, d_o_turned);
  gather_values(head.lse, queries, lse);
  gather_values(head.delta, queries, delta);
  std::fill_n(dq, queries.count * padded, 0.0f);

  for (size_t p = leader_index; p < head.plan.passes.size(); ++p) {
    const Pass& pass = head.plan.passes[p];
    if (!same_queries(pass, leader)) continue;
    const int32_t* mask_id = head.masks[p].of_row(query_tile).data();
    const std::span<const TileRun> runs = pass.rows.of(query_tile);
    TilePositions keys = runs.empty() ? TilePositions() : TilePositions(pass.keys, runs[0].begin);
    for (size_t run = 0; run < runs.size(); ++run) {
      for (int32_t key_tile = runs[run].begin; key_tile < runs[run].end; ++key_tile) {
        const TileMask* mask = runs[run].full ? nullptr : &head.masks[p].masks[*mask_id++];
        const uint64_t* by_query = mask ? mask->rows.data() : nullptr;
        const uint64_t* by_key = mask ? mask->columns.data() : nullptr;
        const TilePositions next_keys = tile_after(pass.keys, runs, run, key_tile);
        gather_rows(head.k, keys, head.width, key_rows);
        gather_rows(head.v, keys, head.v_width, value_rows);
        multiply_scores(key_rows, padded, head.width, keys.count, queries_turned, vectors, by_key, scores,
                        {head.k, &next_keys, head.width});
        multiply_scores(value_rows, v_padded, head.v_width, keys.count, d_o_turned, vectors, by_key,
                        d_weights, {head.v, &next_keys, head.v_width});
        weights_and_gradients<false>(scores, d_weights, keys.count, vectors, lse, delta, by_key, head.scale);
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
                  .depths_of_row = by_query});
        keys = next_keys;
      }
    }
  }
  add_rows(dq, queries, head.width, head.dq);
}

}  // namespace HWY_NAMESPACE
}  // namespace longstride::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(backward_key_tile);
HWY_EXPORT(backward_query_tile);

namespace {

// Rows that one task prepares.
constexpr int64_t kRowsPerTask = 256;

// delta of a range of positions, and zero in their gradients.
void prepare_rows(const BackwardHead& head, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float *o = head.o.row(i), *d_o = head.d_o.row(i);
    float sum = 0;
    for (int64_t j = 0; j < head.v_width; ++j) sum += o[j] * d_o[j];
    head.delta[i] = sum;
    std::fill_n(head.dq.row(i), head.width, 0.0f);
    std::fill_n(head.dk.row(i), head.width, 0.0f);
    std::fill_n(head.dv.row(i), head.v_width, 0.0f);
  }
}

// Whole heads keep the threads busy for long enough to be worth five products against seven.
bool one_thread_a_head(int64_t heads_of_all_sequences, int64_t threads) {
  const int64_t rounds = (heads_of_all_sequences + threads - 1) / threads;
  return heads_of_all_sequences * 7 >= rounds * threads * 5;
}

}  // namespace

void attention_backward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t,
                        const AttentionGradients& gradients) {
  const int64_t batch = t.q.shape[0], heads = t.q.shape[2];
  const Arena::Scope scope(*context.scratch);
  const Tensor delta = context.scratch->allocate(DType::f32, {batch, heads, plan.n});
  const ThreadScratch scratch(*context.scratch, threads(), t.q.shape[3], t.v.shape[3]);
  const int team = team_for(batch * plan.pairs, t.q.shape[3] + t.v.shape[3]);
  const auto head_of = [&](int64_t b, int64_t h) {
    const int plan_index = plan.plan_of_head[h];
    return BackwardHead{plan.plans[plan_index],
                        plan.masks[plan_index],
                        head_rows(t.q, b, h),
                        head_rows(t.k, b, h),
                        head_rows(t.v, b, h),
                        head_rows(t.o, b, h),
                        head_rows(gradients.d_o, b, h),
                        head_rows(gradients.dq, b, h),
                        head_rows(gradients.dk, b, h),
                        head_rows(gradients.dv, b, h),
                        head_values(t.lse, b, h),
                        head_values(delta, b, h),
                        t.q.shape[3],
                        t.v.shape[3],
                        t.scale};
  };

  const TileTasks pieces(plan, batch, [](const Plan& p) { return (p.n + kRowsPerTask - 1) / kRowsPerTask; });
#pragma omp parallel for schedule(static) num_threads(team)
  for (int64_t index = 0; index < pieces.size(); ++index) {
    const auto [b, h, piece] = pieces[index];
    prepare_rows(head_of(b, h), piece * kRowsPerTask, std::min((piece + 1) * kRowsPerTask, plan.n));
  }

  if (one_thread_a_head(batch * heads, threads())) {
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (int64_t index = 0; index < batch * heads; ++index) {
      const BackwardHead head = head_of(index / heads, index % heads);
      for (size_t pass = 0; pass < head.plan.passes.size(); ++pass)
        for (int64_t tile = 0; tile < head.plan.passes[pass].keys.count(); ++tile)
          HWY_DYNAMIC_DISPATCH(backward_key_tile)
      (head, pass, tile, true, scratch.of_thread(omp_get_thread_num()));
    }
    return;
  }
  for (size_t pass = 0; pass < most_passes(plan); ++pass) {
    const TileTasks queries(plan, batch, [pass](const Plan& p) {
      return pass < p.passes.size() && leads(p, pass) ? p.passes[pass].queries.count() : 0;
    });
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (int64_t index = 0; index < queries.size(); ++index) {
      const auto [b, h, tile] = queries[index];
      HWY_DYNAMIC_DISPATCH(backward_query_tile)
      (head_of(b, h), pass, tile, scratch.of_thread(omp_get_thread_num()));
    }
    const TileTasks keys(plan, batch, [pass](const Plan& p) {
      return pass < p.passes.size() ? p.passes[pass].keys.count() : 0;
    });
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (int64_t index = 0; index < keys.size(); ++index) {
      const auto [b, h, tile] = keys[index];
      HWY_DYNAMIC_DISPATCH(backward_key_tile)
      (head_of(b, h), pass, tile, false, scratch.of_thread(omp_get_thread_num()));
    }
  }
}

int64_t attention_scratch_bytes(const AttentionPlan& plan, int64_t batch, int64_t heads, int64_t qk_width,
                                int64_t v_width) {
  Arena arena = Arena::measuring({});
  arena.allocate(DType::f32, {batch, heads, plan.n});  // delta
  const ThreadScratch scratch(arena, threads(), qk_width, v_width);
  return arena.peak();
}

}  // namespace longstride::cpu
#endif
