// The decoder on a GPU: its steps against the parallel forward, and bytes that do not depend on how they are
// drawn. Skipped where there is no GPU.
#include <algorithm>
#include <cmath>
#include <tuple>

#include <gtest/gtest.h>

#include "longstride/decode/cuda/model.h"
#include "longstride/decode/decoder.h"
#include "longstride/device/backend.h"
#include "longstride/pattern/terms/table.h"

#include "tests/support/gpu_weights.h"

namespace longstride {
namespace {

using support::kGpu;
using support::OnGpu;
using support::random_bytes;
using support::RandomModel;
using support::small_config;

double loss_of(const float* logits, uint8_t token) {
  double most = logits[0], sum = 0;
  for (int64_t i = 0; i < kVocabulary; ++i) most = std::max<double>(most, logits[i]);
  for (int64_t i = 0; i < kVocabulary; ++i) sum += std::exp(logits[i] - most);
  return most + std::log(sum) - logits[token];
}

// Wide enough that warps make several loads of a tile, and blocks take several tiles.
ModelConfig wide_config(const std::string& pattern, int64_t context) {
  ModelConfig config = small_config(pattern, context, 2, 4);
  config.width = 256, config.qk_width = 128, config.feed_forward = 2312;
  return config;
}

// How a model changes queries and keys, values, which it mixes with those of the first block, and what the
// feed-forward reads, which it convolves.
enum class Change { none, turned, turned_and_normalised, normalised, mixed, convolved, all };
constexpr Change kChanges[] = {Change::turned,     Change::turned_and_normalised,
                               Change::normalised, Change::mixed,
                               Change::convolved,  Change::all};

bool turns(Change change) {
  return change == Change::turned || change == Change::turned_and_normalised || change == Change::all;
}

ModelConfig with(Change change, ModelConfig config) {
  if (turns(change)) config.positions = "rotary";
  config.qk_norm =
      change == Change::normalised || change == Change::turned_and_normalised || change == Change::all;
  if (change == Change::mixed || change == Change::all) config.value_residual = 0.4;
  if (change == Change::convolved || change == Change::all) config.convolution = 4;
  return config;
}

DecoderOptions with(int64_t streams, DecodeSchedule schedule = DecodeSchedule::fastest) {
  DecoderOptions options;
  options.streams = streams;
  options.gpu_schedule = schedule;
  return options;
}

// Differences from `expected` (streams, context) losses from position `primed` on, as far as is decoded.
struct Differences {
  double worst = 0, mean = 0;
};

Differences differences(Decoder& decoder, const std::vector<uint8_t>& tokens,
                        const std::vector<float>& expected, int64_t primed, int64_t end = 0) {
  const int64_t streams = decoder.streams(), context = decoder.config().context;
  if (end == 0) end = context;
  for (int64_t s = 0; s < streams && primed > 0; ++s)
    decoder.prefill(s, {tokens.data() + s * context, static_cast<size_t>(primed)});
  Differences d;
  for (int64_t position = primed; position < end; ++position) {
    std::vector<uint8_t> previous(static_cast<size_t>(streams));
    for (int64_t s = 0; s < streams && position > 0; ++s) previous[s] = tokens[s * context + position - 1];
    const Tensor logits = decoder.step(previous, position);
    for (int64_t s = 0; s < streams; ++s) {
      const int64_t at = s * context + position;
      const double apart = std::abs(loss_of(logits.as<float>() + s * kVocabulary, tokens[at]) - expected[at]);
      if (!(apart <= d.worst)) d.worst = apart;
      d.mean += apart / static_cast<double>(streams * (end - primed));
    }
  }
  return d;
}

// What 16 bits round is a matter of luck for the one, but not for the mean.
void expect_close(const Differences& d, DType product, const std::string& what) {
  if (product == DType::f32) {
    EXPECT_LT(d.worst, 3e-4) << what;
  }
  EXPECT_LT(d.mean, product == DType::bf16 ? 0.1 : 0.02) << what;
}

class GpuDecoder : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = backend(kGpu).why_not(kGpu.index);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

class GpuPatterns : public GpuDecoder,
                    public ::testing::WithParamInterface<std::tuple<const char*, DType>> {};

TEST_P(GpuPatterns, TheCacheGivesWhatTheParallelForwardGives) {
  const auto& [pattern, product] = GetParam();
  for (const int64_t context : {1, 45, 60}) {
    const RandomModel model(small_config(pattern, context, 3, 4));
    const OnGpu gpu(model, product);
    const std::vector<uint8_t> tokens = random_bytes(3 * context, 11);
    const std::vector<float> expected = model.losses(tokens);
    for (const int64_t primed : {0, 5, 33})
      for (const DecodeSchedule schedule : {DecodeSchedule::persistent, DecodeSchedule::graph}) {
        if (primed >= context) continue;
        Decoder decoder(model.config, gpu.parameters, kGpu, with(3, schedule));
        expect_close(differences(decoder, tokens, expected, primed), product,
                     fmt::format("context {}, {} primed", context, primed));
      }
  }
}

// The position's own key is kept as the parallel forward gives it to the attention, and read before it is.
TEST_P(GpuPatterns, ChangedQueriesAndKeysGiveWhatTheParallelForwardGives) {
  const auto& [pattern, product] = GetParam();
  for (const Change change : kChanges) {
    const RandomModel model(with(change, small_config(pattern, 60, 3, 4)));
    const OnGpu gpu(model, product);
    const std::vector<uint8_t> tokens = random_bytes(3 * 60, 11);
    const std::vector<float> expected = model.losses(tokens);
    for (const auto& [streams, end] : {std::pair{int64_t{1}, int64_t{47}}, {int64_t{3}, int64_t{60}}})
      for (const int64_t primed : {0, 5, 33})
        for (const DecodeSchedule schedule : {DecodeSchedule::persistent, DecodeSchedule::graph}) {
          DecoderOptions options = with(streams, schedule);
          options.positions = end;
          Decoder decoder(model.config, gpu.parameters, kGpu, options);
          expect_close(differences(decoder, tokens, expected, primed, end), product,
                       fmt::format("change {}, {} streams, {} primed, to {}", static_cast<int>(change),
                                   streams, primed, end));
        }
  }
}

// The first example of each kind of term, and unions.
std::vector<const char*> gpu_patterns() {
  std::vector<const char*> patterns;
  for (const terms::Entry& entry : terms::table()) patterns.push_back(entry.examples.front());
  patterns.insert(patterns.end(),
                  {"summary:8,2,1", "strided:8", "fixed:16,4", "spread-fixed:8,2", "window:4|stride:4",
                   "stride:8,window:8*2", "window:3+previous-row:9+summary:6,2+stride:5"});
  return patterns;
}

INSTANTIATE_TEST_SUITE_P(Patterns, GpuPatterns,
                         ::testing::Combine(::testing::ValuesIn(gpu_patterns()),
                                            ::testing::Values(DType::f32, DType::bf16, DType::f16)));

void expect_wide_models_to_agree(Change change) {
  const RandomModel model(with(change, wide_config("fixed:64,16", 300)));
  const std::vector<uint8_t> tokens = random_bytes(2 * 300, 11);
  const std::vector<float> expected = model.losses(tokens);
  for (const DType product : {DType::f32, DType::bf16, DType::f16}) {
    const OnGpu gpu(model, product);
    for (const DecodeSchedule schedule : {DecodeSchedule::persistent, DecodeSchedule::graph})
      for (const bool exact : {false, true}) {
        DecoderOptions options = with(2, schedule);
        options.exact_scores = exact;
        Decoder decoder(model.config, gpu.parameters, kGpu, options);
        expect_close(differences(decoder, tokens, expected, 100), product, exact ? "exact scores" : "");
      }
  }
}

// Needs no GPU: places are the same in any memory. An odd number of layers, whose table ends within a line.
TEST(GpuDecoderMemory, RoomsBeginWithALine) {
  ModelConfig config = with(Change::all, wide_config("fixed:16,4", 64));
  config.layers = 3;
  for (const int64_t streams : {1, 3}) {
    cuda::decode::Args a = cuda::decode::args_of(config, 1, streams);
    Arena arena({}, int64_t{1} << 20);
    cuda::decode::lay_out(a, DType::bf16, arena);
    const auto* const first = reinterpret_cast<const char*>(a.layers);
    const void* const rooms[] = {a.heads,  a.stores,   a.readings, a.row_runs, a.own_rows,
                                 a.x,      a.q,        a.k,        a.sums,     a.totals,
                                 a.normed, a.attended, a.hidden,   a.arrived,  a.first_values};
    for (const void* room : rooms) EXPECT_EQ((static_cast<const char*>(room) - first) % 128, 0);
  }
}

TEST_F(GpuDecoder, WideModelsAgree) { expect_wide_models_to_agree(Change::none); }

TEST_F(GpuDecoder, WideModelsOfChangedQueriesAndKeysAgree) {
  for (const Change change : kChanges) expect_wide_models_to_agree(change);
}

// Heads whose halves are eights or not, that fill a warp's lanes or not, and whose last channel has no pair.
TEST_F(GpuDecoder, ChangedHeadsOfAnyWidthAgree) {
  for (const std::string pattern : {"strided:8", "window:3+previous-row:9+summary:6,2+stride:5", "block:8"})
    for (const int64_t head : {2, 3, 5, 6, 8, 13, 16, 24, 40, 64, 72, 96, 160, 250, 256})
      for (const int64_t head_v : {16, 12})
        for (const Change change : kChanges) {
          if (turns(change) && head % 2 == 1) continue;
          ModelConfig config = with(change, small_config(pattern, 40, 2, 2));
          config.qk_width = 2 * head, config.width = 2 * head_v;
          const RandomModel model(config);
          const std::vector<uint8_t> tokens = random_bytes(2 * 40, 11);
          const std::vector<float> expected = model.losses(tokens);
          for (const DType product : {DType::f32, DType::bf16}) {
            const OnGpu gpu(model, product);
            for (const DecodeSchedule schedule : {DecodeSchedule::persistent, DecodeSchedule::graph}) {
              Decoder decoder(model.config, gpu.parameters, kGpu, with(2, schedule));
              expect_close(differences(decoder, tokens, expected, 0), product,
                           fmt::format("{}, heads of {} and {}, change {}", pattern, head, head_v,
                                       static_cast<int>(change)));
            }
          }
        }
}

TEST_F(GpuDecoder, RotaryPositionsOfGivenAxesAgree) {
  ModelConfig config = with(Change::turned_and_normalised, small_config("strided:9", 45));
  config.position_axes = {5, 3, 3};
  const RandomModel model(config);
  const std::vector<uint8_t> tokens = random_bytes(2 * 45, 11);
  const std::vector<float> expected = model.losses(tokens);
  for (const DType product : {DType::f32, DType::bf16, DType::f16}) {
    const OnGpu gpu(model, product);
    for (const int64_t primed : {0, 20})
      for (const DecodeSchedule schedule : {DecodeSchedule::persistent, DecodeSchedule::graph}) {
        Decoder decoder(model.config, gpu.parameters, kGpu, with(2, schedule));
        expect_close(differences(decoder, tokens, expected, primed), product,
                     fmt::format("{} primed", primed));
      }
  }
}

TEST_F(GpuDecoder, WhatRotaryPositionsTakeIsPlanned) {
  const ModelConfig plain = small_config("strided:9", 64);
  DecoderOptions options = with(2);
  options.positions = 32;
  const auto bytes = [&](Change change) {
    return Decoder::bytes(with(change, plain), kGpu, DType::f32, options);
  };
  const int64_t keys = 2 * plain.qk() * static_cast<int64_t>(sizeof(float));
  const int64_t table = 32 * plain.qk_head() * static_cast<int64_t>(sizeof(float));
  EXPECT_GE(bytes(Change::normalised) - bytes(Change::none), keys);
  EXPECT_LE(bytes(Change::normalised) - bytes(Change::none), keys + 256);
  EXPECT_GE(bytes(Change::turned) - bytes(Change::normalised), table);
  EXPECT_LE(bytes(Change::turned) - bytes(Change::normalised), table + 256);
}

TEST_F(GpuDecoder, WhatMixedValuesTakeIsPlanned) {
  const ModelConfig plain = small_config("strided:9", 64);
  const auto bytes = [&](Change change) {
    return Decoder::bytes(with(change, plain), kGpu, DType::f32, with(2));
  };
  const int64_t values = 2 * plain.width * static_cast<int64_t>(sizeof(float));
  const int64_t more = bytes(Change::mixed) - bytes(Change::normalised);
  EXPECT_GE(more, values);
  EXPECT_LE(more, values + 256);
}

TEST_F(GpuDecoder, WhatConvolutionsTakeIsPlanned) {
  const ModelConfig plain = small_config("strided:9", 64);
  const auto bytes = [&](Change change) {
    return Decoder::bytes(with(change, plain), kGpu, DType::bf16, with(2));
  };
  const int64_t kept = plain.layers * 2 * 4 * plain.width * 2;
  const int64_t more = bytes(Change::convolved) - bytes(Change::normalised);
  EXPECT_GE(more, kept);
  EXPECT_LE(more, kept + plain.layers * 256 + 256);
}

// Sequences at their own positions, alone and beside others, by both schedules: the very bits.
void expect_sequences_not_to_see_each_other(std::initializer_list<ModelConfig> configs) {
  for (const ModelConfig& config : configs)
    for (const DType product : {DType::f32, DType::bf16}) {
      const RandomModel model(config);
      const OnGpu gpu(model, product);
      const std::vector<uint8_t> tokens = random_bytes(40, 5);
      const auto own = [&](int64_t position) { return position > 0 ? tokens[position - 1] : uint8_t{0}; };
      Decoder alone(config, gpu.parameters, kGpu, with(1, DecodeSchedule::persistent));
      std::vector<std::vector<float>> expected;
      for (int64_t position = 0; position < 40; ++position) {
        const Tensor logits = alone.step(std::vector<uint8_t>{own(position)}, position);
        expected.emplace_back(logits.as<float>(), logits.as<float>() + kVocabulary);
      }
      for (const auto& [streams, schedule] : {std::pair{int64_t{1}, DecodeSchedule::graph},
                                              {int64_t{5}, DecodeSchedule::persistent},
                                              {int64_t{16}, DecodeSchedule::persistent},
                                              {int64_t{16}, DecodeSchedule::graph},
                                              {int64_t{70}, DecodeSchedule::graph}}) {
        Decoder beside(config, gpu.parameters, kGpu, with(streams, schedule));
        // Sequence s begins s steps later and rests until then.
        for (int64_t step = 0; step < 40; ++step) {
          std::vector<uint8_t> previous;
          std::vector<int64_t> positions;
          for (int64_t s = 0; s < streams; ++s) {
            positions.push_back(step >= s ? step - s : Decoder::kRests);
            previous.push_back(own(std::max<int64_t>(positions.back(), 0)));
          }
          const Tensor logits = beside.step(previous, positions);
          for (int64_t s = 0; s < std::min(streams, step + 1); ++s) {
            const float* row = logits.as<float>() + s * kVocabulary;
            ASSERT_TRUE(std::equal(row, row + kVocabulary, expected[step - s].begin()))
                << streams << " sequences, " << s << " at " << step - s;
          }
        }
      }
    }
}

TEST_F(GpuDecoder, SequencesDoNotSeeEachOther) {
  expect_sequences_not_to_see_each_other(
      {small_config("strided:8", 40, 3, 4), wide_config("fixed:16,4", 40)});
}

TEST_F(GpuDecoder, SequencesOfChangedQueriesAndKeysDoNotSeeEachOther) {
  const Change both = Change::turned_and_normalised;
  expect_sequences_not_to_see_each_other(
      {with(both, small_config("strided:8", 40, 3, 4)), with(both, wide_config("fixed:16,4", 40)),
       with(both, wide_config("summary:8,2,1", 40)),
       with(Change::turned, wide_config("window:3+previous-row:9+summary:6,2+stride:5", 40)),
       with(Change::mixed, small_config("strided:8", 40, 3, 4)),
       with(Change::convolved, small_config("strided:8", 40, 3, 4)),
       with(Change::convolved, wide_config("fixed:16,4", 40)),
       with(Change::all, wide_config("fixed:16,4", 40))});
}

std::vector<uint8_t> advanced(Decoder& decoder, int64_t stream, const SamplerConfig& sampler, int64_t length,
                              int64_t steps) {
  std::vector<uint8_t> bytes;
  while (static_cast<int64_t>(bytes.size()) < length) {
    std::vector<Continuation> list(static_cast<size_t>(decoder.streams()));
    Continuation& c = list[stream];
    c.position = static_cast<int64_t>(bytes.size());
    c.previous = bytes.empty() ? uint8_t{0} : bytes.back();
    c.count = std::min<int64_t>(steps, length - c.position);
    c.draw = {sampler, 3, 1000};
    std::vector<uint8_t> out(static_cast<size_t>(decoder.streams() * steps));
    decoder.advance(list, steps, out);
    bytes.insert(bytes.end(), out.begin() + stream * steps, out.begin() + stream * steps + c.count);
  }
  return bytes;
}

void expect_bytes_drawn_as_on_the_cpu(Change change) {
  const RandomModel model(with(change, small_config("fixed:16,4", 400)));
  const OnGpu gpu(model, DType::bf16);
  for (const SamplerConfig& sampler :
       {SamplerConfig{1, 0, 1, 5}, SamplerConfig{0, 0, 1, 5}, SamplerConfig{0.7, 10, 1, 5},
        SamplerConfig{1.3, 0, 0.8, 5}, SamplerConfig{1, 50, 0.5, 6}, SamplerConfig{2, 1, 1, 5}}) {
    Decoder decoder(model.config, gpu.parameters, kGpu, with(2));
    std::vector<uint8_t> expected;
    for (int64_t position = 0; position < 400; ++position) {
      const uint8_t previous = position > 0 ? expected.back() : uint8_t{0};
      const Tensor logits =
          decoder.step(std::vector<uint8_t>{0, previous}, std::vector<int64_t>{Decoder::kRests, position});
      expected.push_back(draw({logits.as<float>() + kVocabulary, kVocabulary}, sampler, 3, 1000 + position));
    }
    for (const int64_t steps : {1, 7, 300})
      EXPECT_EQ(advanced(decoder, 1, sampler, 400, steps), expected) << steps;
    Decoder by_graph(model.config, gpu.parameters, kGpu, with(20, DecodeSchedule::graph));
    EXPECT_EQ(advanced(by_graph, 13, sampler, 400, 64), expected);
  }
}

TEST_F(GpuDecoder, BytesAreDrawnAsOnTheCpuWhateverTheSteps) {
  expect_bytes_drawn_as_on_the_cpu(Change::none);
}

TEST_F(GpuDecoder, BytesOfChangedQueriesAndKeysAreDrawnAsOnTheCpu) {
  for (const Change change : {Change::turned_and_normalised, Change::mixed, Change::convolved, Change::all})
    expect_bytes_drawn_as_on_the_cpu(change);
}

// One sequence comes to its end, after which there are no angles, while another goes on; and a table that
// ends with the positions that are decoded.
TEST_F(GpuDecoder, SequencesThatHaveEndedRest) {
  for (const ModelConfig& config : {with(Change::turned_and_normalised, small_config("fixed:16,4", 64)),
                                    with(Change::turned_and_normalised, wide_config("strided:8", 64)),
                                    with(Change::convolved, small_config("fixed:16,4", 64)),
                                    with(Change::all, wide_config("strided:8", 64))}) {
    const RandomModel model(config);
    const OnGpu gpu(model, DType::bf16);
    const std::vector<uint8_t> prime = random_bytes(30, 4);
    for (const auto& [streams, schedule] :
         {std::pair{int64_t{2}, DecodeSchedule::persistent}, {int64_t{20}, DecodeSchedule::graph}}) {
      DecoderOptions options = with(streams, schedule);
      options.positions = 40;
      const auto drawn = [&](bool first, bool second) {
        Decoder decoder(model.config, gpu.parameters, kGpu, options);
        decoder.prefill(0, prime);
        decoder.prefill(1, {prime.data(), 6});
        std::vector<Continuation> list(static_cast<size_t>(streams));
        if (first) list[0] = {30, prime[29], 10, {}};
        if (second) list[1] = {6, prime[5], 34, {.stream = 1}};
        std::vector<uint8_t> out(static_cast<size_t>(34 * streams));
        decoder.advance(list, 34, out);
        return out;
      };
      const std::vector<uint8_t> both = drawn(true, true), one = drawn(true, false),
                                 other = drawn(false, true);
      EXPECT_TRUE(std::equal(one.begin(), one.begin() + 10, both.begin()));
      EXPECT_TRUE(std::equal(other.begin() + 34, other.begin() + 68, both.begin() + 34));
    }
  }
}

TEST_F(GpuDecoder, CopiesGoOnAsTheirOriginals) {
  const RandomModel model(with(Change::convolved, small_config("window:4|stride:4", 60, 2, 4)));
  const OnGpu gpu(model, DType::bf16);
  const std::vector<uint8_t> prime = random_bytes(30, 4);
  Decoder decoder(model.config, gpu.parameters, kGpu, with(3));
  decoder.prefill(1, prime);
  decoder.copy_sequence(1, 2);
  std::vector<Continuation> list(3);
  for (const int64_t s : {1, 2}) list[s] = {30, prime.back(), 30, {.stream = 9}};
  std::vector<uint8_t> out(90);
  decoder.advance(list, 30, out);
  EXPECT_TRUE(std::equal(out.begin() + 30, out.begin() + 60, out.begin() + 60));
  EXPECT_EQ(decoder.filled(0), 0);
  EXPECT_EQ(decoder.filled(2), 60);
}

TEST_F(GpuDecoder, WeightsThatAreNoNumbersAreToldOf) {
  const RandomModel model(small_config("fixed:16,4", 40));
  const OnGpu gpu(model, DType::f32);
  const float nan = std::nanf("");
  copy(Tensor(const_cast<float*>(&nan), DType::f32, {1}),
       Tensor(gpu.parameters.final_gain.data, DType::f32, {1}, kGpu.kind));
  Decoder decoder(model.config, gpu.parameters, kGpu, with(1));
  std::vector<uint8_t> out(4);
  EXPECT_THROW(decoder.advance(std::vector<Continuation>{{.count = 4}}, 4, out), Error);
}

TEST_F(GpuDecoder, EightBitWeightsGiveWhatTheyGiveOnTheCpu) {
  RandomModel model(small_config("fixed:16,4", 40));
  const QuantizedParameters here = model.quantize_products();
  const OnGpu gpu(model, DType::f32);
  Decoder on_gpu(model.config, gpu.parameters, kGpu, with(1));
  Decoder on_cpu(model.config, model.parameters, Device{}, with(1), &here);
  const std::vector<uint8_t> tokens = random_bytes(40, 3);
  for (int64_t position = 0; position < 40; ++position) {
    const std::vector<uint8_t> previous{position > 0 ? tokens[position - 1] : uint8_t{0}};
    const Tensor a = on_gpu.step(previous, position), b = on_cpu.step(previous, position);
    for (int64_t i = 0; i < kVocabulary; ++i) EXPECT_NEAR(a.as<float>()[i], b.as<float>()[i], 0.02);
  }
}

}  // namespace
}  // namespace longstride
