// Bytes through a model's decoder and back, in the bits that the parallel forward predicts.
#include "longstride/compress/window_coder.h"

#include <numbers>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/random_model.h"

namespace longstride {
namespace {

using support::changed_config;
using support::random_bytes;
using support::RandomModel;
using support::small_config;

Decoder decoder_of(const RandomModel& model, int64_t streams, int64_t positions = 0) {
  DecoderOptions options;
  options.streams = streams;
  options.positions = positions;
  return Decoder(model.config, model.parameters, Device{}, options);
}

void expect_every_length_back(const RandomModel& model) {
  for (const int64_t streams : {1, 2, 5})
    for (const int64_t size : {0, 1, 19, 20, 21, 40, 59, 100, 101, 237}) {
      Decoder decoder = decoder_of(model, streams);
      WindowCoder coder(decoder);
      const std::vector<uint8_t> data = random_bytes(size, 3);
      int64_t done = 0;
      const Code code = coder.encode(data, [&](int64_t more) { done += more; });
      EXPECT_EQ(done, size);
      EXPECT_NEAR(static_cast<double>(code.bytes.size()), code.bits / 8, 2 + code.bits / 8 * 1e-4);
      std::vector<uint8_t> back(static_cast<size_t>(size), 0xAA);
      // As another process would.
      Decoder later = decoder_of(model, streams);
      WindowCoder(later).decode(code.bytes, back);
      EXPECT_EQ(back, data) << streams << " " << size;
    }
}

TEST(WindowCoder, EveryLengthComesBack) {
  expect_every_length_back(RandomModel(small_config("fixed:6,2", 20)));
  expect_every_length_back(RandomModel(changed_config("fixed:6,2", 20)));
}

void expect_bits_of_the_parallel_forward(const RandomModel& model) {
  const std::vector<uint8_t> data = random_bytes(24 * 7, 4);
  Decoder decoder = decoder_of(model, 3);
  const Code code = WindowCoder(decoder).encode(data);
  const std::vector<float> losses = model.losses(data);
  const double bits = std::accumulate(losses.begin(), losses.end(), 0.0) / std::numbers::ln2;
  EXPECT_NEAR(code.bits, bits, bits * 1e-4);
}

TEST(WindowCoder, BitsAreThoseOfTheParallelForward) {
  expect_bits_of_the_parallel_forward(RandomModel(small_config("stride:4", 24)));
  expect_bits_of_the_parallel_forward(RandomModel(changed_config("stride:4", 24)));
}

TEST(WindowCoder, CodeOfNobodyGivesBytesButNoHarm) {
  const RandomModel model(small_config("dense", 16));
  Decoder decoder = decoder_of(model, 2);
  WindowCoder coder(decoder);
  std::vector<uint8_t> data(50);
  coder.decode({}, data);
  coder.decode(random_bytes(100, 1), data);
}

TEST(WindowCoder, ShortDataNeedsNoMoreThanItsPositions) {
  const RandomModel model(small_config("dense", 30));
  const std::vector<uint8_t> data = random_bytes(7, 5);
  Decoder decoder = decoder_of(model, 1, 7);
  WindowCoder coder(decoder);
  EXPECT_EQ(coder.probe().size(), 16u);
  const Code code = coder.encode(data);
  std::vector<uint8_t> back(7);
  coder.decode(code.bytes, back);
  EXPECT_EQ(back, data);
}

TEST(WindowCoder, ProbesTellModelsApart) {
  const ModelConfig config = small_config("window:8", 100);
  const RandomModel model(config), other(config, 8);
  Decoder first = decoder_of(model, 3), again = decoder_of(model, 3), different = decoder_of(other, 3);
  const std::string probe = WindowCoder(first).probe();
  EXPECT_EQ(probe, WindowCoder(first).probe());
  EXPECT_EQ(probe, WindowCoder(again).probe());
  EXPECT_NE(probe, WindowCoder(different).probe());
  // One weight, a little: enough that another device's rounding would show.
  for (size_t i = 0; i < model.table.size(); ++i)
    if (model.table[i].name == "output.weight") model.weights[i].as<float>()[0] *= 1.00001f;
  EXPECT_NE(probe, WindowCoder(again).probe());
}

}  // namespace
}  // namespace longstride
