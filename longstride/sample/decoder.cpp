#include "longstride/sample/decoder.h"

#include <algorithm>
#include <cmath>

#include "longstride/base/rng.h"
#include "longstride/ops/activation.h"
#include "longstride/ops/adam.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/store_rows.h"

namespace longstride {

namespace {

// A cache (streams, H, context, D) as attention reads it, (streams, context, H, D).
Tensor by_position(Tensor cache) {
  std::swap(cache.shape[1], cache.shape[2]);
  std::swap(cache.stride[1], cache.stride[2]);
  return cache;
}

// Positions [begin, end) of one sequence or, for stream -1, of all: (streams, end - begin, H, D).
Tensor part_of(const Tensor& cache, int64_t stream, int64_t begin, int64_t end) {
  Tensor part = by_position(stream < 0 ? cache : cache.rows(stream, stream + 1));
  part.data = static_cast<char*>(part.data) + begin * part.stride[1] * size_of(part.dtype);
  part.shape[1] = end - begin;
  return part;
}

// Waking other threads for each op of a step costs more than they save if the step reads fewer weights (few
// streams, where memory sets the pace) and multiplies less (many streams) than this.
constexpr int64_t kSerialWeights = int64_t{2} << 20, kSerialProducts = int64_t{16} << 20;

// One thread while it lives, if the work is small.
class ThreadLimit {
 public:
  explicit ThreadLimit(bool one) : before_(one ? threads() : 0) {
    if (before_ > 0) set_threads(1);
  }
  ~ThreadLimit() {
    if (before_ > 0) set_threads(before_);
  }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

bool too_small_to_share(const ModelConfig& config, int64_t streams) {
  int64_t weights = 0;
  for (const ParameterSpec& spec : parameter_table(config))
    if (spec.product) weights += spec.count();
  return weights < kSerialWeights && streams * weights < kSerialProducts;
}

}  // namespace

Decoder::Room Decoder::lay_out(const ModelConfig& config, DType product, int64_t streams, Arena& arena) {
  Room room;
  const int64_t d = config.width;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    room.keys.push_back(arena.allocate(product, {streams, config.heads, config.context, config.qk_head()}));
    room.values.push_back(arena.allocate(product, {streams, config.heads, config.context, config.v_head()}));
  }
  room.previous = arena.allocate(DType::u8, {streams});
  room.x = arena.allocate(DType::f32, {streams, d});
  room.normed = arena.allocate(DType::f32, {streams, d});
  room.attended = arena.allocate(DType::f32, {streams, d});
  room.branch = arena.allocate(DType::f32, {streams, d});
  room.qkv = arena.allocate(DType::f32, {streams, config.qkv()});
  room.hidden = arena.allocate(DType::f32, {streams, config.ff()});
  room.mean = arena.allocate(DType::f32, {streams});
  room.rstd = arena.allocate(DType::f32, {streams});
  room.logits = arena.allocate(DType::f32, {streams, kVocabulary});
  return room;
}

int64_t Decoder::scratch_bytes(const ModelConfig& config, Device device, DType product, int64_t streams) {
  const int64_t d = config.width;
  int64_t bytes = linear_scratch_bytes(device, streams, d, kVocabulary, product);
  for (const auto& [out, in] : {std::pair{config.qkv(), d}, {d, d}, {config.ff(), d}, {d, config.ff()}})
    bytes = std::max(bytes, linear_scratch_bytes(device, streams, in, out, product));
  return bytes;
}

int64_t Decoder::bytes(const ModelConfig& config, Device device, DType product, int64_t streams) {
  Arena measure = Arena::measuring(device);
  lay_out(config, product, streams, measure);
  return measure.peak() + scratch_bytes(config, device, product, streams);
}

Decoder::Decoder(const ModelConfig& config, const ModelParameters& parameters, Device device, int64_t streams,
                 const QuantizedParameters* quantized)
    : config_(config),
      parameters_(parameters),
      quantized_(quantized),
      schedule_(config.schedule()),
      device_(device),
      product_(parameters.output_weight.dtype),
      streams_(streams),
      serial_(too_small_to_share(config, streams)) {
  LONGSTRIDE_CHECK(streams >= 1, "decoding {} sequences, must be at least 1", streams);
  Arena measure = Arena::measuring(device);
  lay_out(config, product_, streams, measure);
  arena_ = Arena(device, measure.peak());
  room_ = lay_out(config, product_, streams, arena_);
  scratch_ = Arena(device, scratch_bytes(config, device, product_, streams));
  context_ = {device, &scratch_};
  host_logits_ = room_.logits;
  host_previous_ = room_.previous;
  if (device.kind == DeviceKind::cpu) return;
  host_ = Arena(Device{}, host_logits_.bytes() + host_previous_.bytes() + 128);
  host_logits_ = host_.allocate(DType::f32, {streams, kVocabulary});
  host_previous_ = host_.allocate(DType::u8, {streams});
}

Tensor Decoder::step(std::span<const uint8_t> previous, int64_t position) {
  LONGSTRIDE_CHECK(position >= 0 && position < config_.context,
                   "decoding position {} of a context of {} bytes", position, config_.context);
  LONGSTRIDE_CHECK(position <= filled_, "decoding position {} when only {} are known", position, filled_);
  LONGSTRIDE_CHECK(position == 0 || static_cast<int64_t>(previous.size()) == streams_,
                   "{} previous bytes for {} sequences", previous.size(), streams_);
  const ThreadLimit limit(serial_);
  if (position > 0) {
    std::copy(previous.begin(), previous.end(), host_previous_.as<uint8_t>());
    if (host_previous_.data != room_.previous.data) copy(host_previous_, room_.previous);
  }
  embedding_one(context_, room_.previous, position, parameters_.embedding, room_.x);
  for (int64_t layer = 0; layer < config_.layers; ++layer) block(layer, position);
  layer_norm_forward(context_, room_.x, parameters_.final_gain, parameters_.final_bias, kFinalNormEpsilon,
                     room_.normed, room_.mean, room_.rstd);
  product(room_.normed, parameters_.output_weight, quantized_ ? quantized_->output() : QuantizedMatrix{}, {},
          room_.logits);
  if (host_logits_.data != room_.logits.data) copy(room_.logits, host_logits_);
  filled_ = position + 1;
  return host_logits_;
}

void Decoder::product(const Tensor& x, const Tensor& w, const QuantizedMatrix& quantized, const Tensor& b,
                      const Tensor& y) const {
  if (quantized.values)
    quantized_linear_forward(context_, x, quantized, b, y);
  else
    linear_forward(context_, x, w, b, y);
}

// The same computation as block_forward for the single row `position` of each sequence.
void Decoder::block(int64_t layer, int64_t position) {
  const BlockParameters& p = parameters_.blocks[layer];
  const QuantizedBlock q = quantized_ ? quantized_->blocks()[layer] : QuantizedBlock{};
  const Room& r = room_;
  const int64_t qk = config_.qk(), heads = config_.heads;
  const auto no_dropout = Dropout{};

  layer_norm_forward(context_, r.x, p.norm1_gain, p.norm1_bias, kNormEpsilon, r.normed, r.mean, r.rstd);
  product(r.normed, p.qkv_weight, q.qkv, p.qkv_bias, r.qkv);
  const Tensor queries = r.qkv.columns(0, qk).split_last(heads);
  const Tensor keys = r.qkv.columns(qk, 2 * qk).split_last(heads).split_first(streams_);
  const Tensor values = r.qkv.columns(2 * qk, config_.qkv()).split_last(heads).split_first(streams_);
  store_rows(context_, keys, part_of(r.keys[layer], -1, position, position + 1));
  store_rows(context_, values, part_of(r.values[layer], -1, position, position + 1));
  attention_one(context_, schedule_.layer(layer), position, queries, by_position(r.keys[layer]),
                by_position(r.values[layer]), 1.0f / std::sqrt(static_cast<float>(config_.qk_head())),
                r.attended.split_last(heads));
  product(r.attended, p.projection_weight, q.projection, p.projection_bias, r.branch);
  dropout_add_forward(context_, r.x, r.branch, no_dropout, r.x);

  layer_norm_forward(context_, r.x, p.norm2_gain, p.norm2_bias, kNormEpsilon, r.normed, r.mean, r.rstd);
  product(r.normed, p.up_weight, q.up, p.up_bias, r.hidden);
  activation_forward(context_, r.hidden, r.hidden);
  product(r.hidden, p.down_weight, q.down, p.down_bias, r.branch);
  dropout_add_forward(context_, r.x, r.branch, no_dropout, r.x);
}

void Decoder::prefill(const Tensor& tokens) {
  LONGSTRIDE_CHECK(
      tokens.dtype == DType::u8 && tokens.rank == 2 && tokens.shape[0] == streams_ && tokens.contiguous(),
      "the beginnings are {}, must be u8 ({}, length)", tokens.describe(), streams_);
  const int64_t length = tokens.shape[1];
  LONGSTRIDE_CHECK(length <= config_.context, "a beginning of {} bytes; the model's context is {}", length,
                   config_.context);
  if (length > kParallelFrom) return prefill_in_parallel(tokens);
  const uint8_t* bytes = tokens.as<uint8_t>();
  std::vector<uint8_t> previous(streams_);
  for (int64_t position = 0; position < length; ++position) {
    for (int64_t s = 0; s < streams_ && position > 0; ++s) previous[s] = bytes[s * length + position - 1];
    step(previous, position);
  }
}

void Decoder::prefill_in_parallel(const Tensor& tokens) {
  const int64_t length = tokens.shape[1];
  const uint8_t* bytes = tokens.as<uint8_t>();
  // Patterns and embeddings do not depend on how many positions follow, so a shorter model gives the same
  // rows.
  ModelConfig shorter = config_;
  shorter.position_axes = config_.axes();
  shorter.context = length;
  ComputePlan plan;
  plan.device = device_;
  plan.product = product_;
  Transformer transformer(shorter, plan);
  Arena device_tokens(device_, device_.kind == DeviceKind::cpu ? 0 : length + 64);

  for (int64_t s = 0; s < streams_; ++s) {
    const uint8_t* own = bytes + s * length;
    int64_t same = 0;
    while (same < s && !std::equal(own, own + length, bytes + same * length)) ++same;
    if (same < s) {
      for (int64_t layer = 0; layer < config_.layers; ++layer)
        for (const Tensor& cache : {room_.keys[layer], room_.values[layer]})
          store_rows(context_, part_of(cache, same, 0, length), part_of(cache, s, 0, length));
      continue;
    }
    Tensor row = tokens.rows(s, s + 1);
    if (device_.kind != DeviceKind::cpu) {
      const Arena::Scope scope(device_tokens);
      const Tensor there = device_tokens.allocate(DType::u8, {1, length});
      copy(row, there);
      row = there;
    }
    transformer.prefill(parameters_, row, [&](int64_t layer, const Tensor& keys, const Tensor& values) {
      store_rows(context_, keys, part_of(room_.keys[layer], s, 0, length));
      store_rows(context_, values, part_of(room_.values[layer], s, 0, length));
    });
  }
  filled_ = length;
}

void Decoder::fill_with_noise(int64_t positions) {
  LONGSTRIDE_CHECK(positions >= 0 && positions <= config_.context, "{} positions of a context of {} bytes",
                   positions, config_.context);
  const RandomStream random{1, 0};
  for (const std::vector<Tensor>* caches : {&room_.keys, &room_.values})
    for (const Tensor& cache : *caches) {
      std::vector<float> noise(cache.stride[2]);
      for (size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(random.normal(i)) * 0.1f;
      Tensor rows(noise.data(), DType::f32, {streams_, positions, config_.heads, cache.shape[3]});
      rows.stride = {0, 0, 0, 1};  // the same row everywhere
      store_rows(context_, rows, part_of(cache, -1, 0, positions));
    }
  filled_ = positions;
}

}  // namespace longstride
