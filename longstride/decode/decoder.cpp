#include "longstride/decode/decoder.h"

#include <algorithm>

#include "longstride/base/rng.h"
#include "longstride/base/threads.h"
#include "longstride/decode/small_work.h"
#include "longstride/ops/adam.h"
#include "longstride/ops/causal_convolution.h"

namespace longstride {

namespace {

DecoderOptions resolved(const ModelConfig& config, DecoderOptions options) {
  LONGSTRIDE_CHECK(options.streams >= 1, "decoding {} sequences, must be at least 1", options.streams);
  LONGSTRIDE_CHECK(options.positions >= 0 && options.positions <= config.context,
                   "decoding sequences of {} positions; the model's context is {}", options.positions,
                   config.context);
  if (options.positions == 0) options.positions = config.context;
  return options;
}

CachePlan plan_for(const ModelConfig& config, Device device, DType product, const DecoderOptions& options) {
  CachePlan plan = plan_caches(config, options.positions, product, options.exact_scores);
  // The dtype in which the steps keep the rows for the convolution.
  plan.recent = device.kind == DeviceKind::cpu ? DType::f32 : product;
  return plan;
}

ComputePlan forward_plan(Device device, DType product) {
  ComputePlan plan;
  plan.device = device;
  plan.product = product;
  return plan;
}

// Arbitrary small numbers.
void fill_with_noise(const Tensor& t) {
  constexpr int64_t kPeriod = 4099;  // a prime, so that neighbouring rows differ
  const RandomStream random{1, 0};
  std::vector<float> noise(kPeriod);
  for (int64_t i = 0; i < kPeriod; ++i) noise[i] = static_cast<float>(random.normal(i)) * 0.1f;
  const auto fill = [&](auto* to) {
    constexpr int64_t kPiece = 4 * kPeriod;
    parallel_for((t.count() + kPiece - 1) / kPiece, [&](int64_t piece) {
      for (int64_t i = piece * kPiece; i < std::min(t.count(), (piece + 1) * kPiece); ++i)
        to[i] = static_cast<std::remove_pointer_t<decltype(to)>>(noise[i % kPeriod]);
    });
  };
  if (t.dtype == DType::bf16)
    fill(t.as<Bf16>());
  else if (t.dtype == DType::f16)
    fill(t.as<F16>());
  else
    fill(t.as<float>());
}

}  // namespace

// A forward pass over primes of one length: plans and memory are made once for all of them.
struct Decoder::Prefill {
  Prefill(const ModelConfig& config, Device device, DType product, int64_t positions)
      : length(positions),
        threads(longstride::threads()),
        transformer(config.shortened(length), forward_plan(device, product)),
        arena(device, device.kind == DeviceKind::cpu ? 0 : length + 64) {
    if (device.kind != DeviceKind::cpu) tokens = arena.allocate(DType::u8, {1, length});
  }

  int64_t length;
  int threads;
  Transformer transformer;
  Arena arena;
  Tensor tokens;  // on a device; empty on the CPU
};

int64_t Decoder::bytes(const ModelConfig& config, Device device, DType product,
                       const DecoderOptions& options) {
  const DecoderOptions all = resolved(config, options);
  const int64_t caches = KeyCaches::bytes(config, plan_for(config, device, product, all), all.streams);
  return caches + steps_bytes(device, config, product, all);
}

int64_t Decoder::prefill_bytes(const ModelConfig& config, Device device, DType product, int64_t positions) {
  if (positions <= kParallelFrom) return 0;
  const MemoryPlan plan = plan_memory(config.shortened(positions), forward_plan(device, product), false);
  const int64_t tokens = device.kind == DeviceKind::cpu ? 0 : positions + 64;
  return plan.activations + plan.temporaries + plan.plans + tokens;
}

Decoder::Decoder(const ModelConfig& config, const ModelParameters& parameters, Device device,
                 const DecoderOptions& options, const QuantizedParameters* quantized)
    : config_(config),
      parameters_(parameters),
      device_(device),
      product_(parameters.output_weight.dtype),
      options_(resolved(config, options)),
      caches_(config_, plan_for(config_, device, product_, options_), device, options_.streams),
      filled_(static_cast<size_t>(options_.streams), 0),
      engine_(make_steps(device_, {config_, parameters_, caches_, quantized}, options_)) {}

Decoder::~Decoder() = default;

void Decoder::check_next(int64_t sequence, int64_t position) const {
  LONGSTRIDE_CHECK(position >= 0 && position < options_.positions,
                   "decoding position {} of sequences of {} positions", position, options_.positions);
  LONGSTRIDE_CHECK(position == 0 || position == filled_[sequence],
                   "decoding position {} of sequence {}, whose next position is {}: go on there, or start "
                   "again at 0",
                   position, sequence, filled_[sequence]);
}

Tensor Decoder::step(std::span<const uint8_t> previous, std::span<const int64_t> positions) {
  LONGSTRIDE_CHECK(static_cast<int64_t>(positions.size()) == streams(), "{} positions for {} sequences",
                   positions.size(), streams());
  for (int64_t s = 0; s < streams(); ++s) {
    if (positions[s] == kRests) continue;
    check_next(s, positions[s]);
    LONGSTRIDE_CHECK(positions[s] == 0 || static_cast<int64_t>(previous.size()) == streams(),
                     "{} previous bytes for {} sequences", previous.size(), streams());
  }
  const Tensor logits = engine_->step(previous, positions);
  for (int64_t s = 0; s < streams(); ++s)
    if (positions[s] != kRests) filled_[s] = positions[s] + 1;
  return logits;
}

Tensor Decoder::step(std::span<const uint8_t> previous, int64_t position) {
  return step(previous, std::vector<int64_t>(static_cast<size_t>(streams()), position));
}

void Decoder::advance(std::span<const Continuation> continuations, int64_t steps, std::span<uint8_t> out) {
  LONGSTRIDE_CHECK(static_cast<int64_t>(continuations.size()) == streams(),
                   "{} continuations of {} sequences", continuations.size(), streams());
  LONGSTRIDE_CHECK(steps >= 0 && static_cast<int64_t>(out.size()) == streams() * steps,
                   "the output has {} bytes, must have one for each of {} sequences and {} steps", out.size(),
                   streams(), steps);
  for (int64_t s = 0; s < streams(); ++s) {
    const Continuation& c = continuations[s];
    LONGSTRIDE_CHECK(c.count >= 0 && c.count <= steps, "{} bytes of sequence {} in {} steps", c.count, s,
                     steps);
    if (c.count == 0) continue;
    c.draw.sampler.check();
    check_next(s, c.position);
    LONGSTRIDE_CHECK(c.position + c.count <= options_.positions,
                     "{} bytes from position {} on, in sequences of {} positions", c.count, c.position,
                     options_.positions);
  }
  // If drawing fails, nobody knows how far the caches have come. So only position 0 may follow.
  for (int64_t s = 0; s < streams(); ++s)
    if (continuations[s].count > 0) filled_[s] = 0;
  engine_->advance(continuations, steps, out.data());
  for (int64_t s = 0; s < streams(); ++s)
    if (continuations[s].count > 0) filled_[s] = continuations[s].position + continuations[s].count;
}

void Decoder::prefill(int64_t sequence, std::span<const uint8_t> bytes) {
  const int64_t length = static_cast<int64_t>(bytes.size());
  LONGSTRIDE_CHECK(sequence >= 0 && sequence < streams(), "sequence {} of {}", sequence, streams());
  LONGSTRIDE_CHECK(length <= options_.positions, "a beginning of {} bytes, in sequences of {} positions",
                   length, options_.positions);
  filled_[sequence] = 0;
  if (length > kParallelFrom) return prefill_in_parallel(sequence, bytes);
  std::vector<int64_t> positions(static_cast<size_t>(streams()), kRests);
  std::vector<uint8_t> previous(positions.size());
  for (int64_t position = 0; position < length; ++position) {
    positions[sequence] = position;
    previous[sequence] = position > 0 ? bytes[position - 1] : 0;
    step(previous, positions);
  }
}

void Decoder::prefill(const Tensor& tokens) {
  LONGSTRIDE_CHECK(
      tokens.dtype == DType::u8 && tokens.rank == 2 && tokens.shape[0] == streams() && tokens.contiguous(),
      "the beginnings are {}, must be u8 ({}, length)", tokens.describe(), streams());
  const int64_t length = tokens.shape[1];
  const auto row = [&](int64_t s) {
    return std::span<const uint8_t>(tokens.as<uint8_t>() + s * length, static_cast<size_t>(length));
  };
  if (length <= kParallelFrom) {
    LONGSTRIDE_CHECK(length <= options_.positions, "beginnings of {} bytes, in sequences of {} positions",
                     length, options_.positions);
    std::fill(filled_.begin(), filled_.end(), 0);
    std::vector<uint8_t> previous(static_cast<size_t>(streams()));
    for (int64_t position = 0; position < length; ++position) {
      for (int64_t s = 0; s < streams() && position > 0; ++s) previous[s] = row(s)[position - 1];
      step(previous, position);
    }
    return;
  }
  for (int64_t s = 0; s < streams(); ++s) {
    int64_t same = 0;
    while (same < s && !std::equal(row(s).begin(), row(s).end(), row(same).begin())) ++same;
    if (same < s)
      copy_sequence(same, s);
    else
      prefill(s, row(s));
  }
}

void Decoder::prefill_in_parallel(int64_t sequence, std::span<const uint8_t> bytes) {
  const int64_t length = static_cast<int64_t>(bytes.size());
  const ThreadLimit limit(device_.kind == DeviceKind::cpu &&
                          too_small_to_share(product_weights(config_), length));
  // Working memory differs between numbers of threads.
  if (prefill_ == nullptr || prefill_->length != length || prefill_->threads != threads()) {
    prefill_.reset();
    prefill_ = std::make_unique<Prefill>(config_, device_, product_, length);
  }
  Tensor tokens(const_cast<uint8_t*>(bytes.data()), DType::u8, {1, length});  // only read
  if (prefill_->tokens) {
    copy(tokens, prefill_->tokens);
    tokens = prefill_->tokens;
  }
  // Turns (1, N, ...) into (N, ...).
  const auto of_one = [](Tensor t) {
    --t.rank;
    std::copy(t.shape.begin() + 1, t.shape.end(), t.shape.begin());
    std::copy(t.stride.begin() + 1, t.stride.end(), t.stride.begin());
    return t;
  };
  prefill_->transformer.prefill(parameters_, tokens, [&](int64_t layer, const LayerRows& rows) {
    run({device_, nullptr},
        StoreKeys{caches_.layer(layer), sequence, 0, of_one(rows.keys), of_one(rows.values)});
    if (rows.unconvolved) keep_recent(layer, sequence, of_one(rows.unconvolved));
  });
  filled_[sequence] = length;
}

void Decoder::keep_recent(int64_t layer, int64_t sequence, const Tensor& rows) const {
  const int64_t taps = kConvolutionTaps, length = rows.shape[0];
  const Tensor kept = caches_.recent(layer).rows(sequence, sequence + 1).reshaped({taps, rows.shape[1]});
  for (int64_t position = std::max<int64_t>(0, length - taps); position < length; ++position) {
    const Tensor from = rows.rows(position, position + 1);
    const Tensor to = kept.rows(position % taps, position % taps + 1);
    if (from.dtype == to.dtype)
      copy(from, to);
    else
      run({device_, nullptr}, Convert{from, to});
  }
}

void Decoder::copy_sequence(int64_t from, int64_t to) {
  for (const int64_t sequence : {from, to})
    LONGSTRIDE_CHECK(sequence >= 0 && sequence < streams(), "sequence {} of {}", sequence, streams());
  if (from == to) return;
  for (int64_t layer = 0; layer < caches_.layers(); ++layer)
    for (const Tensor& cache : caches_.tensors(layer))
      copy(cache.rows(from, from + 1), cache.rows(to, to + 1));
  filled_[to] = filled_[from];
}

void Decoder::fill_with_noise(int64_t positions) {
  LONGSTRIDE_CHECK(positions >= 0 && positions <= options_.positions, "{} positions of sequences of {}",
                   positions, options_.positions);
  for (int64_t layer = 0; layer < caches_.layers(); ++layer)
    for (const Tensor& cache : caches_.tensors(layer)) {
      if (device_.kind == DeviceKind::cpu) {
        longstride::fill_with_noise(cache);
        continue;
      }
      Arena host({}, cache.bytes() + 64);
      const Tensor here = host.allocate(cache.dtype, {cache.shape[0], cache.shape[1], cache.shape[2]});
      longstride::fill_with_noise(here);
      copy(here, cache);
    }
  std::fill(filled_.begin(), filled_.end(), positions);
}

}  // namespace longstride
