// The host's side of decoding on a GPU (contract: longstride/ops/decode_step.h): rooms, what the kernels are
// told, and which schedule a step takes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numbers>

#include "longstride/base/check.h"
#include "longstride/device/backend.h"
#include "longstride/device/cuda.h"
#include "longstride/device/staging.h"
#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/cuda/decode/launch.h"
#include "longstride/ops/decode_step.h"

namespace longstride::cuda {

using namespace decode;

namespace {

// Steps of one call of the GPU: bytes drawn wait there until all are done.
constexpr int64_t kMostSteps = 256;
// Blocks that the attention of one sequence should come to.
constexpr int64_t kPiecesOfLayer = 128, kMostPieces = 64;

// Up to here one persistent kernel is faster than a graph: measured for the model of configs/enwik8.toml on
// an H100, in docs/sampling.md.
constexpr int64_t kFewSequences = 3;

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// What the model is, with pointers into its tensors.
struct Described {
  Args args{};
  std::vector<Layer> layers;
  std::vector<Head> heads;
  std::vector<KeyStore> stores;
  DType product = DType::f32;
};

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

void set_convolution(const DecodeLayer& layer, int64_t streams, int64_t width, DType product, Layer& to) {
  const Tensor &w = layer.convolution, &recent = layer.recent;
  LONGSTRIDE_CHECK(w && w.dtype == DType::f32 && w.rank == 2 && w.contiguous() &&
                       w.shape[0] == kConvolutionTaps && w.shape[1] == width,
                   "decoding: a convolution is {}, must be f32 ({}, {}), of all layers or of none",
                   w.describe(), kConvolutionTaps, width);
  LONGSTRIDE_CHECK(recent && recent.dtype == product && recent.rank == 3 && recent.contiguous() &&
                       recent.shape[0] == streams && recent.shape[1] == kConvolutionTaps &&
                       recent.shape[2] == width,
                   "decoding: rows to convolve are {}, must be {} ({}, {}, {})", recent.describe(),
                   name_of(product), streams, kConvolutionTaps, width);
  to.convolution = f32(w), to.recent = recent.data;
}

// The sizes alone.
Args args_of(const DecodeShape& shape, int64_t streams) {
  LONGSTRIDE_CHECK(shape.head_width <= kWidestHead && shape.head_width_v <= kWidestHead,
                   "decoding: heads of {} and {}, a GPU takes up to {}; use --device cpu", shape.head_width,
                   shape.head_width_v, kWidestHead);
  Args a{};
  a.streams = static_cast<int32_t>(streams);
  a.layer_count = static_cast<int32_t>(shape.layers);
  a.head_count = static_cast<int32_t>(shape.heads);
  a.store_count = static_cast<int32_t>(shape.stores);
  a.head_width = static_cast<int32_t>(shape.head_width);
  a.head_width_v = static_cast<int32_t>(shape.head_width_v);
  a.width = a.head_count * a.head_width_v;
  a.qk = a.head_count * a.head_width;
  a.feed_forward = static_cast<int32_t>(shape.feed_forward);
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
  a.mixes = shape.mixes, a.convolves = shape.convolves;
  a.changes = shape.changes || shape.mixes || shape.convolves;
  a.turn_vectors = a.head_width % 16 == 0;
  while ((8 << a.lane_shift) < std::max(a.head_width, a.head_width_v)) ++a.lane_shift;
  return a;
}

Described describe(const DecodeModel& model, int64_t streams) {
  LONGSTRIDE_CHECK(!model.layers.empty(), "decoding a model without layers");
  const KeyCache& cache = model.layers[0].cache;
  Described d;
  d.product = model.output_weight.dtype;
  std::map<const KeyStore*, int32_t> known;
  for (const DecodeLayer& layer : model.layers)
    for (const HeadRows& head : layer.cache.heads)
      if (known.try_emplace(head.store, static_cast<int32_t>(d.stores.size())).second)
        d.stores.push_back(*head.store);
  d.args = args_of({static_cast<int64_t>(model.layers.size()), static_cast<int64_t>(cache.heads.size()),
                    cache.keys.shape[2], cache.values.shape[2], model.layers[0].up_weight.shape[0],
                    static_cast<int64_t>(d.stores.size()), d.product, model.rotation || model.qk_norm,
                    model.value_residual > 0, static_cast<bool>(model.layers[0].convolution)},
                   streams);
  Args& a = d.args;
  a.wide_keys = cache.keys.dtype != d.product;
  LONGSTRIDE_CHECK(!a.wide_keys || cache.keys.dtype == DType::f32, "decoding: keys are {}, must be {} or f32",
                   name_of(cache.keys.dtype), name_of(d.product));
  a.embedding = embedding(model.embedding);
  a.normalised = model.qk_norm;
  if (model.rotation) a.rotation = rotation(model.rotation, a.head_width);
  a.final_norm = norm(model.final_gain, model.final_bias, model.final_epsilon);
  a.output = weight(model.output_weight, {}, d.product);

  for (const DecodeLayer& layer : model.layers) {
    Layer& l = d.layers.emplace_back();
    l.norm1 = norm(layer.norm1_gain, layer.norm1_bias, model.epsilon);
    l.norm2 = norm(layer.norm2_gain, layer.norm2_bias, model.epsilon);
    l.qkv = weight(layer.qkv_weight, layer.qkv_bias, d.product);
    l.projection = weight(layer.projection_weight, layer.projection_bias, d.product);
    l.up = weight(layer.up_weight, layer.up_bias, d.product);
    l.down = weight(layer.down_weight, layer.down_bias, d.product);
    l.keys = layer.cache.keys.data, l.values = layer.cache.values.data;
    l.rows = layer.cache.keys.shape[1];
    if (a.convolves || layer.convolution) set_convolution(layer, streams, a.width, d.product, l);
    // The first layer has none before it to mix with.
    l.value_share = d.layers.size() > 1 ? model.value_residual : 0;
    // Layers of the schedule's cycle share their heads.
    std::vector<Head> heads;
    for (const HeadRows& head : layer.cache.heads)
      heads.push_back({known.at(head.store), static_cast<int32_t>(head.first_row)});
    const auto at = std::search(d.heads.begin(), d.heads.end(), heads.begin(), heads.end());
    l.heads_from = static_cast<int32_t>(at - d.heads.begin());
    if (at == d.heads.end()) d.heads.insert(d.heads.end(), heads.begin(), heads.end());
  }
  a.distinct_heads = static_cast<int32_t>(d.heads.size());
  return d;
}

template <class T>
T* room_for(Arena& arena, int64_t count) {
  return static_cast<T*>(
      arena.allocate(DType::u8, {std::max<int64_t>(1, count * static_cast<int64_t>(sizeof(T)))}).data);
}

// Rooms on the GPU.
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

template <class T>
void upload(const std::vector<T>& from, const T* to) {
  copy(const_cast<T*>(to), from.data(), static_cast<int64_t>(from.size() * sizeof(T)));
}

// What goes to and fro in one piece of memory: sequences up; logits or bytes, and faults, down.
struct Exchange {
  int64_t sequences, fault, logits, out, bytes;
  explicit Exchange(int64_t streams) {
    sequences = 0;
    fault = round_up(streams * static_cast<int64_t>(sizeof(Sequence)), 64);
    logits = fault + 64;
    out = logits + streams * kVocabulary * static_cast<int64_t>(sizeof(float));
    bytes = out + streams * kMostSteps;
  }
};

}  // namespace

struct DecodeSteps::State {
  State(const DecodeModel& model, int device_index, int64_t streams, DecodeSchedule schedule)
      : described(describe(model, streams)), place(streams), arena(Arena::measuring({})) {
    const Device device{DeviceKind::cuda, device_index};
    Args& a = described.args;
    Arena measure = Arena::measuring(device);
    lay_out(a, described.product, measure);
    arena = Arena(device, measure.peak());
    lay_out(a, described.product, arena);
    upload(described.layers, a.layers);
    upload(described.heads, a.heads);
    upload(described.stores, a.stores);
    exchange = Staging(device, place.bytes);
    char* const there = static_cast<char*>(exchange.device());
    a.sequences = reinterpret_cast<Sequence*>(there + place.sequences);
    a.fault = reinterpret_cast<int32_t*>(there + place.fault);
    a.logits = reinterpret_cast<float*>(there + place.logits);
    a.out = reinterpret_cast<uint8_t*>(there + place.out);
    a.out_stride = kMostSteps;
    if (schedule == DecodeSchedule::persistent ||
        (schedule == DecodeSchedule::fastest && streams <= kFewSequences))
      blocks = persistent_blocks(described.product, a);
    LONGSTRIDE_CHECK(schedule != DecodeSchedule::persistent || blocks > 0,
                     "decoding {} sequences by one kernel: this GPU does so for up to {}", streams,
                     most_fused());
  }

  template <class T>
  T* host(int64_t at) const {
    return reinterpret_cast<T*>(static_cast<char*>(exchange.host()) + at);
  }

  // Tells the GPU where the sequences stand and runs so many steps.
  void run(std::span<const DecodeSequence> sequences, int64_t steps, bool draws) {
    Sequence* const to = host<Sequence>(place.sequences);
    for (size_t i = 0; i < sequences.size(); ++i) {
      const DecodeSequence& s = sequences[i];
      to[i] = {s.origin,
               s.seed,
               s.temperature,
               s.top_p,
               static_cast<int32_t>(s.position),
               static_cast<int32_t>(std::min(s.count, steps)),
               static_cast<int32_t>(std::min<int64_t>(s.top_k, 256)),
               0,
               s.stream,
               s.previous};
    }
    *host<int32_t>(place.fault) = 0;
    exchange.upload(0, place.logits);
    if (blocks > 0)
      return launch_persistent(described.product, described.args, blocks, static_cast<int>(steps), draws);
    launch_prepare(described.product, described.args);
    std::unique_ptr<Graph>& graph = draws ? drawing : plain;
    if (graph == nullptr)
      graph =
          backend(DeviceKind::cuda).record([&] { launch_stages(described.product, described.args, draws); });
    for (int64_t step = 0; step < steps; ++step) graph->launch();
  }

  Described described;
  Exchange place;
  Arena arena;
  Staging exchange;
  int blocks = 0;  // of the persistent kernel; 0: graphs
  std::unique_ptr<Graph> plain, drawing;
};

DecodeSteps::DecodeSteps(const DecodeModel& model, int device_index, int64_t streams, DecodeSchedule schedule)
    : state_(std::make_unique<State>(model, device_index, streams, schedule)) {}
DecodeSteps::~DecodeSteps() = default;

int64_t DecodeSteps::bytes(const DecodeShape& shape, int64_t streams) {
  Args args = args_of(shape, streams);
  Arena measure = Arena::measuring({DeviceKind::cuda, 0});
  lay_out(args, shape.product, measure);
  return measure.peak() + Exchange(streams).bytes;
}

const float* DecodeSteps::step(std::span<const DecodeSequence> sequences) {
  State& s = *state_;
  s.run(sequences, 1, false);
  s.exchange.download(s.place.logits, s.place.out - s.place.logits);
  s.exchange.wait();
  return s.host<float>(s.place.logits);
}

void DecodeSteps::advance(std::span<const DecodeSequence> sequences, int64_t steps, uint8_t* out) {
  State& s = *state_;
  std::vector<DecodeSequence> now(sequences.begin(), sequences.end());
  for (int64_t done = 0; done < steps; done += kMostSteps) {
    const int64_t part = std::min(steps - done, kMostSteps);
    s.run(now, part, true);
    s.exchange.download(s.place.fault, sizeof(int32_t));
    s.exchange.download(s.place.out, s.place.bytes - s.place.out);
    s.exchange.wait();
    const int32_t fault = *s.host<int32_t>(s.place.fault);
    LONGSTRIDE_CHECK(fault == 0,
                     "sequence {}: the model's logits are not finite: its weights are damaged, or training "
                     "diverged",
                     fault - 1);
    for (size_t i = 0; i < now.size(); ++i) {
      const int64_t drawn = std::min(now[i].count, part);
      if (drawn <= 0) continue;
      const uint8_t* from = s.host<uint8_t>(s.place.out) + static_cast<int64_t>(i) * kMostSteps;
      std::copy_n(from, drawn, out + static_cast<int64_t>(i) * steps + done);
      now[i].previous = from[drawn - 1];
      now[i].position += drawn, now[i].count -= drawn;
    }
  }
}

}  // namespace longstride::cuda
