#include "longstride/sample/generate.h"

#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/random_model.h"

namespace longstride {
namespace {

using support::changed_config;
using support::random_bytes;
using support::RandomModel;
using support::small_config;
using Bytes = std::vector<uint8_t>;

SamplerConfig seeded(uint64_t seed, double temperature = 1) {
  SamplerConfig sampler;
  sampler.seed = seed;
  sampler.temperature = temperature;
  return sampler;
}

std::vector<Bytes> run(const RandomModel& model, std::vector<Sequence> sequences, int64_t slots,
                       int64_t steps = 1, double hop = 0.5) {
  DecoderOptions options;
  options.streams = slots;
  Decoder decoder(model.config, model.parameters, Device{}, options);
  Generator generator(decoder, std::move(sequences), windows_of(model.config, hop));
  while (!generator.done()) generator.advance(steps);
  std::vector<Bytes> all;
  for (const Sequence& sequence : generator.sequences()) all.push_back(sequence.bytes);
  return all;
}

Bytes one(const RandomModel& model, const Bytes& prime, int64_t length, uint64_t seed = 1) {
  return run(model, {sequence_after(prime, length, seeded(seed), 0)}, 1)[0];
}

// ---- windows ----

TEST(Windows, HopByAPartOfTheContextInRowsOfTheLastAxis) {
  const auto hop = [](const std::string& pattern, int64_t context, double part) {
    return windows_of(small_config(pattern, context), part).hop;
  };
  EXPECT_EQ(hop("strided:8", 64, 0.5), 32);
  EXPECT_EQ(hop("strided:8", 64, 0.4), 24);  // 25.6, in rows of 8
  EXPECT_EQ(hop("strided:8", 64, 0.1), 6);   // less than a row
  EXPECT_EQ(hop("strided:8", 64, 0.001), 1);
  EXPECT_EQ(hop("strided:8", 64, 0.999), 63);  // the last byte stays
  EXPECT_EQ(hop("strided:8", 64, 1), 63);
  EXPECT_EQ(hop("strided:8", 61, 1), 60);
  EXPECT_EQ(hop("strided:8", 61, 0.9), 48);
  EXPECT_EQ(hop("dense", 1, 0.5), 1);
  for (const double wrong : {0.0, -1.0, 1.01, std::nan("")})
    EXPECT_THROW(hop("dense", 64, wrong), Error) << wrong;
}

TEST(Windows, EachPositionBelongsToTheFirstWindowWithRoomForIt) {
  for (int64_t context = 1; context <= 9; ++context)
    for (int64_t hop = 1; hop <= std::max<int64_t>(1, context - 1); ++hop) {
      const Windows windows{context, hop};
      for (int64_t position = 0; position < 40; ++position) {
        int64_t origin = 0;
        while (position >= origin + context) origin += hop;
        EXPECT_EQ(windows.origin(position), origin);
        const int64_t first = windows.first_drawn(position, 0);
        EXPECT_LE(first, position);
        EXPECT_EQ(windows.origin(first), origin);
        EXPECT_TRUE(first == 0 || windows.origin(first - 1) < origin);
        EXPECT_EQ(windows.first_drawn(position, position), position);
      }
    }
}

// ---- one window ----

TEST(Generator, TheSeedAndTheStreamDecide) {
  const RandomModel model(small_config("strided:8", 45));
  EXPECT_EQ(one(model, {}, 45, 1), one(model, {}, 45, 1));
  EXPECT_NE(one(model, {}, 45, 1), one(model, {}, 45, 2));
  const auto two =
      run(model, {sequence_after({}, 45, seeded(1), 0), sequence_after({}, 45, seeded(1), 1)}, 2);
  EXPECT_NE(two[0], two[1]);
  EXPECT_EQ(two[0].size(), 45u);
}

TEST(Generator, BytesFollowTheModelsDistribution) {
  // With temperature 0 every drawn byte has the largest probability that the parallel forward gives any
  // byte.
  const RandomModel model(small_config("fixed:8,2", 12, 2));
  const Bytes bytes = run(model, {sequence_after({}, 12, seeded(1, 0), 0)}, 1)[0];
  for (int position = 0; position < 12; ++position) {
    Bytes tries;
    for (int byte = 0; byte < 256; ++byte) {
      Bytes other = bytes;
      other[position] = static_cast<uint8_t>(byte);
      tries.insert(tries.end(), other.begin(), other.end());
    }
    const auto losses = model.losses(tries);
    int best = 0;
    for (int byte = 1; byte < 256; ++byte)
      if (losses[byte * 12 + position] < losses[best * 12 + position]) best = byte;
    EXPECT_EQ(bytes[position], best) << position;
  }
}

TEST(Generator, BeginsWithThePrime) {
  const RandomModel model(small_config("strided:8", 40));
  const Bytes prime = random_bytes(20, 4);
  const Bytes sample = one(model, prime, 33);
  ASSERT_EQ(sample.size(), 33u);
  EXPECT_TRUE(std::equal(prime.begin(), prime.end(), sample.begin()));
  EXPECT_EQ(one(model, random_bytes(33, 4), 33), random_bytes(33, 4));  // nothing to draw
}

TEST(Generator, RefusesWhatContradictsItself) {
  const RandomModel model(small_config("strided:8", 40));
  EXPECT_THROW(one(model, {}, 0), Error);
  EXPECT_THROW(one(model, random_bytes(5, 1), 4), Error);
  EXPECT_THROW(run(model, {sequence_after({}, 5, seeded(1, -1), 0)}, 1), Error);
  DecoderOptions options;
  options.positions = 16;
  Decoder decoder(model.config, model.parameters, Device{}, options);
  const Windows windows = windows_of(model.config, 0.5);
  const auto make = [&](int64_t length, const Windows& some) {
    Generator(decoder, {sequence_after({}, length, seeded(1), 0)}, some);
  };
  make(16, windows);
  EXPECT_THROW(make(17, windows), Error);
  EXPECT_THROW(make(16, {40, 0}), Error);
  EXPECT_THROW(make(16, {40, 40}), Error);
  EXPECT_THROW(make(16, {41, 20}), Error);
}

// ---- slots ----

// Different lengths, primes, streams and samplers, also beyond the context.
std::vector<Sequence> mixed() {
  std::vector<Sequence> sequences;
  const Bytes shared = random_bytes(21, 5);
  for (uint32_t i = 0; i < 9; ++i) {
    const Bytes prime = i % 3 == 0 ? Bytes{} : i % 3 == 1 ? shared : random_bytes(3 + i, i);
    SamplerConfig sampler = seeded(6 + i / 4, 0.5 + 0.1 * i);
    sampler.top_k = i % 2 ? 20 : 0;
    sequences.push_back(
        sequence_after(prime, std::array{23, 70, 41, 24, 130, 40, 22, 99, 1}[i] + 10, sampler, i));
  }
  return sequences;
}

TEST(Generator, ASampleIsTheSameAloneAndOnAnyNumberOfSlots) {
  const RandomModel model(small_config("fixed:8,2", 40));
  std::vector<Bytes> alone;
  for (const Sequence& sequence : mixed()) alone.push_back(run(model, {sequence}, 1)[0]);
  for (const int64_t slots : {1, 2, 4, 9, 12}) EXPECT_EQ(run(model, mixed(), slots), alone) << slots;
}

TEST(Generator, StepsDoNotMatter) {
  const RandomModel model(small_config("strided:8", 40));
  const auto expected = run(model, mixed(), 4, 1);
  for (const int64_t steps : {2, 7, 64, 1000}) EXPECT_EQ(run(model, mixed(), 4, steps), expected) << steps;
}

TEST(Generator, AFreeSlotTakesTheNextSampleAtOnce) {
  const RandomModel model(small_config("dense", 40));
  DecoderOptions options;
  options.streams = 2;
  Decoder decoder(model.config, model.parameters, Device{}, options);
  std::vector<Sequence> sequences;
  for (const int64_t length : {3, 20, 5, 12}) sequences.push_back(sequence_after({}, length, seeded(1), 0));
  Generator generator(decoder, sequences, windows_of(model.config, 0.5));
  // 40 bytes on two slots that are never idle: 3 + 5 + 12 beside 20.
  for (int step = 1; step <= 20; ++step) {
    generator.advance(1);
    EXPECT_EQ(generator.drawn(), 2 * step);
    EXPECT_EQ(generator.left(), 40 - 2 * step);
  }
  EXPECT_TRUE(generator.done());
  generator.advance(5);  // nothing to do
}

// ---- beyond the context ----

// The same by hand: one position at a time, with a new decoder for each window.
Bytes by_hand(const RandomModel& model, Bytes bytes, int64_t length, const SamplerConfig& sampler,
              uint32_t stream, const Windows& windows) {
  std::unique_ptr<Decoder> decoder;
  int64_t origin = -1;
  while (static_cast<int64_t>(bytes.size()) < length) {
    const int64_t position = std::ssize(bytes);
    int64_t window = 0;
    while (position >= window + windows.context) window += windows.hop;
    if (window != origin) {
      origin = window;
      decoder = std::make_unique<Decoder>(model.config, model.parameters, Device{}, DecoderOptions{});
      decoder->prefill(0, std::span(bytes).subspan(origin));
    }
    Continuation next;
    next.position = position - origin;
    next.previous = bytes.empty() ? uint8_t{0} : bytes.back();
    next.count = 1;
    next.draw.sampler = sampler;
    next.draw.stream = stream;
    next.draw.origin = origin;
    uint8_t byte = 0;
    decoder->advance({&next, 1}, 1, {&byte, 1});
    bytes.push_back(byte);
  }
  return bytes;
}

void expect_windows_of_a_hand_made_loop(const RandomModel& model) {
  for (const double hop : {0.04, 0.3, 0.5, 0.9, 1.0})
    for (const int64_t primed : {0, 1, 23, 24, 25, 60}) {
      const Bytes prime = random_bytes(primed, 3);
      const Windows windows = windows_of(model.config, hop);
      const Bytes expected = by_hand(model, prime, 90, seeded(8), 5, windows);
      EXPECT_EQ(run(model, {sequence_after(prime, 90, seeded(8), 5)}, 1, 7, hop)[0], expected)
          << "hop " << hop << ", " << primed << " given";
    }
}

TEST(Generator, WindowsEqualAHandMadeLoop) {
  expect_windows_of_a_hand_made_loop(RandomModel(small_config("strided:8", 24)));
}

// Turned keys stay as they are, because each window has positions of its own.
TEST(Generator, SoDoThoseOfAModelThatChangesQueriesKeysAndValues) {
  expect_windows_of_a_hand_made_loop(RandomModel(changed_config("strided:8", 24)));
}

TEST(Generator, AContextOfOneByteGoesOnForEver) {
  const RandomModel model(small_config("dense", 1));
  EXPECT_EQ(one(model, {}, 30).size(), 30u);
}

TEST(Generator, TheLongestPrefillIsThatOfAnyWindow) {
  const Windows windows{40, 30};
  const auto longest = [&](int64_t primed, int64_t length) {
    const std::vector<Sequence> sequences{sequence_after(random_bytes(primed, 1), length, seeded(1), 0)};
    return longest_prefill(sequences, windows);
  };
  EXPECT_EQ(longest(0, 40), 0);
  EXPECT_EQ(longest(0, 41), 10);
  EXPECT_EQ(longest(7, 40), 7);
  EXPECT_EQ(longest(7, 50), 10);
  EXPECT_EQ(longest(39, 50), 39);
  EXPECT_EQ(longest(45, 50), 15);
  EXPECT_EQ(longest(50, 50), 0);
}

// ---- memory ----

TEST(Generator, StreamsAreAsManyAsFit) {
  const ModelConfig config = small_config("dense", 1000, 5);
  const auto bytes = [&](int64_t streams) {
    DecoderOptions options;
    options.streams = streams;
    return Decoder::bytes(config, Device{}, DType::f32, options);
  };
  const auto fit = [&](int64_t most, int64_t memory) {
    DecoderOptions options;
    options.streams = most;
    return streams_that_fit(config, Device{}, DType::f32, options, memory);
  };
  EXPECT_EQ(fit(8, 0), 1);
  EXPECT_EQ(fit(8, bytes(8)), 8);
  EXPECT_EQ(fit(8, 100 * bytes(8)), 8);
  for (int64_t streams = 1; streams < 8; ++streams) {
    EXPECT_EQ(fit(8, bytes(streams)), streams);
    EXPECT_EQ(fit(8, bytes(streams + 1) - 1), streams);
  }
}

}  // namespace
}  // namespace longstride
