#include "longstride/decode/cuda/model.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "longstride/base/check.h"
#include "longstride/model/block.h"

namespace longstride::cuda::decode {

namespace {

// Blocks that the attention of one sequence should come to.
constexpr int64_t kPiecesOfLayer = 128, kMostPieces = 64;

// Bytes of a line of the GPU's caches. In every stage all blocks read the same rows. A row that begins within
// a line takes one line more.
constexpr int64_t kLine = 128;

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

const float* f32(const Tensor& t) { return static_cast<const float*>(t.data); }

Weight weight(const Tensor& w, const Tensor& bias, DType product) {
  LONGSTRIDE_CHECK(w.dtype == product && w.rank == 2 && w.contiguous(),
                   "decoding: a weight is {}, must be a contiguous matrix of {}", w.describe(),
                   name_of(product));
  const bool vectors = w.shape[1] % 32 == 0 && reinterpret_cast<uintptr_t>(w.data) % 16 == 0;
  return {w.data, f32(bias), static_cast<int32_t>(w.shape[0]), static_cast<int32_t>(w.shape[1]), vectors};
}

Norm norm(const Tensor& gain, const Tensor& bias, float epsilon) { return {f32(gain), f32(bias), epsilon}; }

Embedding embedding(const EmbeddingTables& tables) {
  LONGSTRIDE_CHECK(tables.axes.size() <= kMostAxes, "decoding: {} position axes, a GPU takes up to {}",
                   tables.axes.size(), kMostAxes);
  Embedding e{};
  e.token = f32(tables.token), e.start = f32(tables.start);
  e.axis_count = static_cast<int32_t>(tables.axes.size());
  for (size_t i = 0; i < tables.axes.size(); ++i) {
    e.axes[i] = f32(tables.axes[i]);
    e.extent[i] = static_cast<int32_t>(tables.axes[i].shape[0]);
  }
  e.before = tables.shift == PositionShift::before;
  return e;
}

const float* rotation(const Tensor& table, int64_t head_width) {
  LONGSTRIDE_CHECK(table.dtype == DType::f32 && table.rank == 2 && table.contiguous() &&
                       table.shape[1] == head_width && head_width % 2 == 0,
                   "decoding: rotation is {}, must be contiguous f32, a row a position, as wide as a head of "
                   "{}",
                   table.describe(), head_width);
  return f32(table);
}

// Whole lines, so that the next room begins with a line too.
template <class T>
T* room_for(Arena& arena, int64_t count) {
  const int64_t bytes = std::max<int64_t>(1, count * static_cast<int64_t>(sizeof(T)));
  return static_cast<T*>(arena.allocate(DType::u8, {round_up(bytes, kLine)}).data);
}

}  // namespace

Args args_of(const ModelConfig& config, int64_t stores, int64_t streams) {
  LONGSTRIDE_CHECK(config.qk_head() <= kWidestHead && config.v_head() <= kWidestHead,
                   "decoding: heads of {} and {}, a GPU takes up to {}; use --device cpu", config.qk_head(),
                   config.v_head(), kWidestHead);
  Args a{};
  a.streams = static_cast<int32_t>(streams);
  a.layer_count = static_cast<int32_t>(config.layers);
  a.head_count = static_cast<int32_t>(config.heads);
  a.store_count = static_cast<int32_t>(stores);
  a.head_width = static_cast<int32_t>(config.qk_head());
  a.head_width_v = static_cast<int32_t>(config.v_head());
  a.width = a.head_count * a.head_width_v;
  a.qk = a.head_count * a.head_width;
  a.feed_forward = static_cast<int32_t>(config.ff());
  // The last eight keep rows of shared memory in banks of their own.
  a.x_stride = static_cast<int32_t>(round_up(a.width, 32) + 8);
  a.hidden_stride = static_cast<int32_t>(round_up(a.feed_forward, 32) + 8);
  LONGSTRIDE_CHECK(streams * a.x_stride * a.x_stride < int64_t{1} << 32,
                   "decoding: {} sequences side by side of width {}, a GPU takes up to {}", streams, a.width,
                   (int64_t{1} << 32) / a.x_stride / a.x_stride - 1);
  a.scale_log2 = static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(a.head_width)));
  a.most_pieces = static_cast<int32_t>(std::clamp<int64_t>(kPiecesOfLayer / a.head_count, 1, kMostPieces));
  a.vectors = a.head_width % 8 == 0, a.vectors_v = a.head_width_v % 8 == 0;
  a.head_width_divisor = Divisor(a.head_width), a.head_width_v_divisor = Divisor(a.head_width_v);
  a.x_stride_divisor = Divisor(a.x_stride);
  a.mixes = config.mixes_values(), a.convolves = config.convolves();
  a.changes = config.rotary() || config.qk_norm || a.mixes || a.convolves;
  a.turn_vectors = a.head_width % 16 == 0;
  while ((8 << a.lane_shift) < std::max(a.head_width, a.head_width_v)) ++a.lane_shift;
  return a;
}

Described describe(const EngineParts& parts, const Tensor& rotation_table, int64_t streams) {
  const ModelConfig& config = parts.config;
  const ModelParameters& parameters = parts.parameters;
  const CachePlan& plan = parts.caches.plan();
  Described d;
  d.product = parameters.output_weight.dtype;
  d.stores = plan.stores;
  d.args = args_of(config, static_cast<int64_t>(d.stores.size()), streams);
  Args& a = d.args;
  a.wide_keys = plan.keys != d.product;
  a.embedding = embedding(parameters.embedding);
  a.normalised = config.qk_norm;
  if (rotation_table) a.rotation = rotation(rotation_table, a.head_width);
  a.final_norm = norm(parameters.final_gain, parameters.final_bias, kFinalNormEpsilon);
  a.output = weight(parameters.output_weight, {}, d.product);

  // Layers of the schedule's cycle share their heads.
  std::vector<int32_t> heads_from;
  for (const LayerCachePlan& layer : plan.layers) {
    heads_from.push_back(static_cast<int32_t>(d.heads.size()));
    for (size_t h = 0; h < layer.store_of_head.size(); ++h)
      d.heads.push_back({layer.store_of_head[h], static_cast<int32_t>(layer.first_row[h])});
  }
  a.distinct_heads = static_cast<int32_t>(d.heads.size());

  for (int64_t index = 0; index < config.layers; ++index) {
    const BlockParameters& p = parameters.blocks[static_cast<size_t>(index)];
    const KeyCache& cache = parts.caches.layer(index);
    Layer& l = d.layers.emplace_back();
    l.norm1 = norm(p.norm1_gain, p.norm1_bias, kNormEpsilon);
    l.norm2 = norm(p.norm2_gain, p.norm2_bias, kNormEpsilon);
    l.qkv = weight(p.qkv_weight, p.qkv_bias, d.product);
    l.projection = weight(p.projection_weight, p.projection_bias, d.product);
    l.up = weight(p.up_weight, p.up_bias, d.product);
    l.down = weight(p.down_weight, p.down_bias, d.product);
    l.keys = cache.keys.data, l.values = cache.values.data;
    l.rows = cache.keys.shape[1];
    if (a.convolves) l.convolution = f32(p.convolution), l.recent = parts.caches.recent(index).data;
    // The first layer has none before it to mix with.
    l.value_share = index > 0 && a.mixes ? static_cast<float>(config.value_residual) : 0;
    l.heads_from = heads_from[static_cast<size_t>(index) % heads_from.size()];
  }
  return d;
}

void lay_out(Args& a, DType product, Arena& arena) {
  const int64_t streams = a.streams, element = size_of(product);
  a.layers = room_for<Layer>(arena, a.layer_count);
  a.heads = room_for<Head>(arena, static_cast<int64_t>(a.layer_count) * a.head_count);
  a.stores = room_for<KeyStore>(arena, a.store_count);
  a.readings = room_for<Reading>(arena, a.store_count * streams);
  a.row_runs = room_for<RowRuns>(arena, a.store_count * streams);
  a.own_rows = room_for<OwnRows>(arena, a.store_count * streams);
  a.x = room_for<float>(arena, streams * a.width);
  a.q = room_for<float>(arena, streams * a.qk);
  if (a.changes) a.k = room_for<float>(arena, streams * a.qk);
  if (a.mixes) a.first_values = room_for<float>(arena, streams * a.width);
  const int64_t pieces = streams * a.head_count * a.most_pieces;
  a.sums = room_for<float>(arena, pieces * a.head_width_v);
  a.totals = room_for<float2>(arena, pieces);
  a.normed = room_for<uint8_t>(arena, streams * a.x_stride * element);
  a.attended = room_for<uint8_t>(arena, streams * a.x_stride * element);
  a.hidden = room_for<uint8_t>(arena, streams * a.hidden_stride * element);
  a.arrived = room_for<uint32_t>(arena, 1);
}

}  // namespace longstride::cuda::decode
