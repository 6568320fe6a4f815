// Several sequences in one decoder: each has its own position, and the same bits as alone.
#include <cstring>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/rng.h"
#include "longstride/decode/decoder.h"

#include "tests/decode/decoding.h"

namespace longstride {
namespace {

using support::decoded_alone;
using support::random_bytes;
using support::row;
using support::small_config;
using support::WeightedModel;

constexpr int64_t kRests = Decoder::kRests;

// Sequences that begin, rest and end at different times, and whose slots others then take.
struct Slot {
  int64_t sequence = -1;  // none yet
  int64_t position = 0;
};

void expect_the_bits_of_being_alone(const WeightedModel& model, int64_t streams) {
  const int64_t context = model.model.config.context, count = 2 * streams + 1;
  std::vector<std::vector<uint8_t>> tokens;
  std::vector<std::vector<std::vector<float>>> alone;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(random_bytes(i % 3 == 0 ? context : 1 + context * i / count, 100 + i));
    alone.push_back(decoded_alone(model, tokens.back()));
  }
  const auto decoder = model.decoder({.streams = streams});
  std::vector<Slot> slots(streams);
  int64_t next = 0, compared = 0;
  const RandomStream random{3, 0};
  for (uint64_t time = 0; compared < count; ++time) {
    ASSERT_LT(time, 10000u);
    std::vector<uint8_t> previous(streams, 77);
    std::vector<int64_t> positions(streams, kRests);
    for (int64_t s = 0; s < streams; ++s) {
      Slot& slot = slots[s];
      if (slot.sequence < 0 && next < count) slot = {next++, 0};
      if (slot.sequence < 0 || random.uniform(time * 64 + s) < 0.2) continue;
      positions[s] = slot.position;
      if (slot.position > 0) previous[s] = tokens[slot.sequence][slot.position - 1];
    }
    const Tensor logits = decoder->step(previous, positions);
    for (int64_t s = 0; s < streams; ++s) {
      Slot& slot = slots[s];
      if (positions[s] == kRests) continue;
      ASSERT_EQ(row(logits, s), alone[slot.sequence][slot.position])
          << streams << " streams, sequence " << slot.sequence << " at " << slot.position;
      if (++slot.position < static_cast<int64_t>(tokens[slot.sequence].size())) continue;
      slot.sequence = -1;
      ++compared;
    }
  }
}

class EveryWeight : public ::testing::TestWithParam<const char*> {
 protected:
  static WeightedModel model(const ModelConfig& config) {
    const std::string name = GetParam();
    return WeightedModel(config, name == "f32" ? DType::f32 : DType::bf16, name == "int8");
  }
};

// Also with more streams than a product of few rows has, and with widths that fill no vector.
TEST_P(EveryWeight, ASequenceIsTheSameBitsAloneAndBesideOthers) {
  for (const char* pattern :
       {"fixed:8,2", "strided:8", "dense", "window:3+previous-row:9+summary:6,2+stride:5",
        "window:4|stride:4", "stride:8,window:8*2", "summary:100,2,prefix:3", "spread-fixed:8,2"}) {
    ModelConfig config = small_config(pattern, 37, 3, 4);
    config.feed_forward = 41;
    for (const int64_t streams : {2, 5, 11}) expect_the_bits_of_being_alone(model(config), streams);
  }
}

// Each row turns by the position of its own sequence.
TEST_P(EveryWeight, TurnedSequencesAreTheSameBitsAloneAndBesideOthers) {
  for (const char* pattern : {"fixed:8,2", "window:4|stride:4", "summary:100,2,prefix:3"}) {
    ModelConfig config = small_config(pattern, 37, 3, 4);
    config.positions = "rotary";
    config.qk_norm = true;
    for (const int64_t streams : {2, 5}) expect_the_bits_of_being_alone(model(config), streams);
  }
}

// Each row's first values are those of its own sequence.
TEST_P(EveryWeight, SequencesOfMixedValuesAreTheSameBitsAloneAndBesideOthers) {
  for (const char* pattern : {"fixed:8,2", "window:4|stride:4"}) {
    ModelConfig config = small_config(pattern, 37, 3, 4);
    config.value_residual = 0.4;
    for (const int64_t streams : {2, 5}) expect_the_bits_of_being_alone(model(config), streams);
  }
}

// With a convolution before the feed-forward, which reads earlier positions.
ModelConfig convolved(ModelConfig config) {
  config.convolution = 4;
  return config;
}

// Each row's earlier rows are those of its own sequence.
TEST_P(EveryWeight, ConvolvedSequencesAreTheSameBitsAloneAndBesideOthers) {
  for (const char* pattern : {"fixed:8,2", "window:4|stride:4"}) {
    const ModelConfig config = convolved(small_config(pattern, 37, 3, 4));
    for (const int64_t streams : {2, 5}) expect_the_bits_of_being_alone(model(config), streams);
  }
}

// The same with so many weights that threads share a step.
TEST_P(EveryWeight, ThreadsDoNotMatter) {
  ModelConfig config = small_config("fixed:16,4", 40, 4, 4);
  config.width = config.qk_width = 256;
  config.feed_forward = 1024;
  const WeightedModel large = model(config);
  const int64_t streams = 9;
  const std::vector<uint8_t> tokens = random_bytes(streams * config.context, 4);
  std::map<int, std::vector<float>> of_threads;
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    const auto decoder = large.decoder({.streams = streams});
    for (int64_t position = 0; position < config.context; ++position) {
      std::vector<uint8_t> previous(streams);
      for (int64_t s = 0; s < streams && position > 0; ++s)
        previous[s] = tokens[s * config.context + position - 1];
      const Tensor logits = decoder->step(previous, position);
      of_threads[count].insert(of_threads[count].end(), logits.as<float>(),
                               logits.as<float>() + logits.count());
    }
  }
  set_threads(0);
  EXPECT_TRUE(of_threads[1] == of_threads[2]);
  EXPECT_TRUE(of_threads[1] == of_threads[3]);
  EXPECT_EQ(row(Tensor(of_threads[1].data(), DType::f32, {config.context * streams, kVocabulary}),
                (config.context - 1) * streams + 3),
            decoded_alone(large, {tokens.begin() + 3 * config.context, tokens.begin() + 4 * config.context})
                .back());
}

TEST_P(EveryWeight, AdvancingIsSteppingAndDrawing) {
  const WeightedModel some = model(small_config("fixed:8,2", 45, 2, 4));
  const int64_t streams = 5, steps = 20;
  std::vector<Continuation> continuations(streams);
  const std::vector<uint8_t> prime = random_bytes(23, 8);
  for (int64_t s = 0; s < streams; ++s) {
    Continuation& c = continuations[s];
    c.draw.sampler = {0.5 + 0.2 * static_cast<double>(s), 40 * s, s == 2 ? 0.8 : 1.0,
                      static_cast<uint64_t>(3 + s)};
    c.draw.stream = static_cast<uint32_t>(7 * s);
    c.draw.origin = 1000 * s;
    c.count = std::array<int64_t, 5>{20, 0, 1, 19, 7}[s];
  }
  continuations[3].position = 23, continuations[3].previous = prime.back();
  continuations[4].draw.sampler.temperature = 0;

  const auto decoder = some.decoder({.streams = streams}), stepped = some.decoder({.streams = streams});
  for (Decoder* d : {decoder.get(), stepped.get()}) d->prefill(3, prime);
  // Two calls, so that the second goes on where the first ended.
  std::vector<uint8_t> out(streams * steps, 0xee), more(streams * 3, 0xee);
  decoder->advance(continuations, steps, out);
  std::vector<Continuation> again = continuations;
  for (int64_t s = 0; s < streams; ++s) {
    again[s].position += again[s].count;
    if (again[s].count > 0) again[s].previous = out[s * steps + again[s].count - 1];
    again[s].count = s % 2 == 0 ? 3 : 0;
    EXPECT_EQ(decoder->filled(s), again[s].position);
  }
  again[0].position = 0, again[0].count = 2;  // begins again
  decoder->advance(again, 3, more);

  const auto expect = [&](const std::vector<Continuation>& all, int64_t count,
                          const std::vector<uint8_t>& drawn) {
    std::vector<uint8_t> expected(drawn.size(), 0xee), previous(streams);
    std::vector<int64_t> positions(streams);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t s = 0; s < streams; ++s) {
        positions[s] = i < all[s].count ? all[s].position + i : kRests;
        previous[s] = i > 0 ? expected[s * count + i - 1] : all[s].previous;
      }
      const Tensor logits = stepped->step(previous, positions);
      for (int64_t s = 0; s < streams; ++s)
        if (i < all[s].count)
          expected[s * count + i] = draw(row(logits, s), all[s].draw.sampler, all[s].draw.stream,
                                         all[s].draw.origin + all[s].position + i);
    }
    EXPECT_EQ(drawn, expected);
  };
  expect(continuations, steps, out);
  expect(again, 3, more);
}

INSTANTIATE_TEST_SUITE_P(DecoderSequences, EveryWeight, ::testing::Values("f32", "bf16", "int8"),
                         [](const auto& info) { return std::string(info.param); });

TEST(DecoderSequences, APrefillLeavesTheOthersAlone) {
  const WeightedModel model(convolved(small_config("strided:8", 40)));
  for (const int64_t length : {5, 30}) {
    const std::vector<uint8_t> first = random_bytes(40, 1), second = random_bytes(40, 2);
    const auto decoder = model.decoder({.streams = 2});
    for (int64_t position = 0; position < 20; ++position)
      decoder->step(std::vector<uint8_t>{position > 0 ? first[position - 1] : uint8_t{0}, 0},
                    std::vector<int64_t>{position, kRests});
    decoder->prefill(1, std::span(second).first(length));
    EXPECT_EQ(decoder->filled(0), 20);
    EXPECT_EQ(decoder->filled(1), length);
    const Tensor logits =
        decoder->step(std::vector<uint8_t>{first[19], second[length - 1]}, std::vector<int64_t>{20, length});
    EXPECT_EQ(row(logits, 0), decoded_alone(model, first)[20]);

    const auto alone = model.decoder({});
    alone->prefill(0, std::span(second).first(length));
    EXPECT_EQ(row(logits, 1), row(alone->step({&second[length - 1], 1}, length), 0));
  }
}

TEST(DecoderSequences, ACopyGoesOnAsTheOriginal) {
  for (const DType product : {DType::f32, DType::bf16}) {
    const WeightedModel model(convolved(small_config("fixed:8,2,dense", 40)), product);
    const std::vector<uint8_t> tokens = random_bytes(40, 6), other = random_bytes(40, 7);
    const auto decoder = model.decoder({.streams = 3, .exact_scores = product == DType::bf16});
    for (int64_t position = 0; position < 25; ++position)
      decoder->step(std::vector<uint8_t>(3, position > 0 ? tokens[position - 1] : uint8_t{0}),
                    std::vector<int64_t>{position, position < 9 ? position : kRests, kRests});
    decoder->copy_sequence(0, 2);
    decoder->copy_sequence(0, 0);
    EXPECT_EQ(decoder->filled(2), 25);
    EXPECT_EQ(decoder->filled(1), 9);
    Tensor logits = decoder->step(std::vector<uint8_t>(3, tokens[24]), std::vector<int64_t>{25, 9, 25});
    EXPECT_EQ(row(logits, 0), row(logits, 2));
    // From here on they differ, and do not affect each other.
    for (int64_t position = 26; position < 40; ++position)
      logits = decoder->step(std::vector<uint8_t>{tokens[position - 1], 0, other[position - 1]},
                             std::vector<int64_t>{position, kRests, position});
    EXPECT_NE(row(logits, 0), row(logits, 2));
    if (product == DType::f32) {
      EXPECT_EQ(row(logits, 0), decoded_alone(model, tokens)[39]);
    }
    EXPECT_THROW(decoder->copy_sequence(0, 3), Error);
  }
}

TEST(DecoderSequences, EqualBeginningsArePrefilledOnceAndDifferentOnesApart) {
  const WeightedModel model(small_config("strided:8", 40));
  for (const int64_t length : {10, 30}) {
    std::vector<uint8_t> rows = random_bytes(length, 1), other = random_bytes(length, 2);
    std::vector<uint8_t> tokens = rows;
    tokens.insert(tokens.end(), other.begin(), other.end());
    tokens.insert(tokens.end(), rows.begin(), rows.end());
    const auto decoder = model.decoder({.streams = 3});
    decoder->prefill(Tensor(tokens.data(), DType::u8, {3, length}));
    const Tensor logits = decoder->step(std::vector<uint8_t>{rows.back(), other.back(), rows.back()}, length);
    EXPECT_EQ(row(logits, 0), row(logits, 2));
    EXPECT_NE(row(logits, 0), row(logits, 1));
  }
}

TEST(DecoderSequences, BeginningAnewForgetsWhatWasThere) {
  for (const char* pattern : {"dense", "fixed:8,2", "window:5", "previous-row:6+summary:8,2", "strided:8"}) {
    const WeightedModel model(small_config(pattern, 40));
    const std::vector<uint8_t> tokens = random_bytes(40, 3);
    const auto decoder = model.decoder({});
    for (const int64_t before : {40, 13, 0}) {
      for (int64_t position = 0; position < before; ++position)
        decoder->step(std::vector<uint8_t>{static_cast<uint8_t>(position * 5)}, position);
      std::vector<std::vector<float>> logits;
      for (int64_t position = 0; position < 40; ++position)
        logits.push_back(row(decoder->step({&tokens[position > 0 ? position - 1 : 0], 1}, position), 0));
      EXPECT_EQ(logits, decoded_alone(model, tokens)) << pattern << " after " << before;
    }
  }
}

// Keys in f32 with values in bf16 give other bits and take more memory.
TEST(DecoderSequences, ExactScoresKeepKeysInF32) {
  const ModelConfig config = small_config("strided:8", 40);
  const std::vector<uint8_t> tokens = random_bytes(40, 3);
  const auto last = [&](const WeightedModel& model, bool exact_scores) {
    const auto decoder = model.decoder({.exact_scores = exact_scores});
    decoder->prefill(0, tokens);
    decoder->prefill(0, std::span(tokens).first(10));
    for (int64_t position = 10; position < 39; ++position)
      decoder->step({&tokens[position - 1], 1}, position);
    return row(decoder->step({&tokens[38], 1}, 39), 0);
  };
  const WeightedModel full(config), half(config, DType::bf16);
  EXPECT_EQ(last(full, true), last(full, false));
  EXPECT_NE(last(half, true), last(half, false));
  const auto bytes = [&](DType product, bool exact_scores) {
    return Decoder::bytes(config, Device{}, product, {.exact_scores = exact_scores});
  };
  EXPECT_EQ(bytes(DType::f32, true), bytes(DType::f32, false));
  EXPECT_EQ(bytes(DType::bf16, true), bytes(DType::bf16, false) + config.layers * 40 * config.qk() * 2);
}

// ---- errors ----

TEST(DecoderErrors, RefusesPositionsThatCannotBe) {
  const WeightedModel model(small_config("dense", 20));
  const auto decoder = model.decoder({.streams = 2});
  const std::vector<uint8_t> previous(2);
  EXPECT_THROW(decoder->step(previous, 1), Error);
  EXPECT_THROW(decoder->step(previous, -2), Error);
  decoder->step(previous, 0);
  decoder->step(previous, std::vector<int64_t>{1, kRests});
  EXPECT_THROW(decoder->step(previous, std::vector<int64_t>{1, 1}), Error);  // going back would lose keys
  EXPECT_THROW(decoder->step(previous, std::vector<int64_t>{2}), Error);
  EXPECT_THROW(decoder->step(std::vector<uint8_t>(3), std::vector<int64_t>{2, 1}), Error);
  EXPECT_THROW(decoder->step(previous, 20), Error);
  EXPECT_EQ(decoder->filled(0), 2);
  EXPECT_EQ(decoder->filled(1), 1);
  std::vector<uint8_t> tokens(2 * 21);
  EXPECT_THROW(decoder->prefill(Tensor(tokens.data(), DType::u8, {2, 21})), Error);
  EXPECT_THROW(decoder->prefill(Tensor(tokens.data(), DType::u8, {3, 7})), Error);
  EXPECT_THROW(decoder->prefill(0, std::vector<uint8_t>(21)), Error);
  EXPECT_THROW(decoder->prefill(2, std::vector<uint8_t>(3)), Error);
  EXPECT_THROW(model.decoder({.streams = 0}), Error);
  EXPECT_THROW(model.decoder({.positions = 21}), Error);
  const auto shorter = model.decoder({.positions = 9});
  EXPECT_EQ(shorter->positions(), 9);
  EXPECT_THROW(shorter->prefill(0, std::vector<uint8_t>(10)), Error);
  shorter->prefill(0, std::vector<uint8_t>(9));
  EXPECT_THROW(shorter->step({previous.data(), 1}, 9), Error);
}

TEST(DecoderErrors, RefusesContinuationsThatCannotBe) {
  const WeightedModel model(small_config("dense", 20));
  const auto decoder = model.decoder({.streams = 2});
  std::vector<uint8_t> out(2 * 30);
  const auto advance = [&](Continuation c, int64_t steps) {
    decoder->advance(std::vector<Continuation>{c, {}}, steps, std::span(out).first(2 * steps));
  };
  EXPECT_THROW(advance({.position = 1, .count = 1}, 3), Error);
  EXPECT_THROW(advance({.count = 4}, 3), Error);
  EXPECT_THROW(advance({.count = -1}, 3), Error);
  EXPECT_THROW(advance({.count = 21}, 30), Error);
  EXPECT_THROW(advance({.count = 1, .draw = {.sampler = {.temperature = -1}}}, 3), Error);
  EXPECT_THROW(decoder->advance(std::vector<Continuation>(1), 3, std::span(out).first(6)), Error);
  EXPECT_THROW(decoder->advance(std::vector<Continuation>(2), 3, std::span(out).first(5)), Error);
  advance({.count = 20}, 30);
  EXPECT_EQ(decoder->filled(0), 20);
  EXPECT_EQ(decoder->filled(1), 0);
}

// After a step that failed in the middle of several, nobody knows what the cache holds.
TEST(DecoderErrors, OnlyTheBeginningFollowsAFailedDraw) {
  WeightedModel model(small_config("window:4", 20));
  const auto decoder = model.decoder({});
  std::vector<uint8_t> out(5);
  decoder->advance(std::vector<Continuation>{{.count = 5}}, 5, out);
  float* gain = model.model.parameters.final_gain.as<float>();
  const float before = gain[0];
  gain[0] = NAN;
  const std::vector<Continuation> more{{.position = 5, .previous = out[4], .count = 5}};
  EXPECT_THROW(decoder->advance(more, 5, out), Error);
  gain[0] = before;
  EXPECT_THROW(decoder->advance(more, 5, out), Error);
  decoder->advance(std::vector<Continuation>{{.count = 5}}, 5, out);
}

}  // namespace
}  // namespace longstride
