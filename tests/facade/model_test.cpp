// Models through longstride.h, against the program `longstride` and against themselves.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <ranges>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <longstride/longstride.h>

#include "tests/facade/small_model.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

static_assert(std::ranges::input_range<Generation>);

std::string text_of(Generation generation) {
  std::string text;
  for (const uint8_t byte : generation) text += static_cast<char>(byte);
  return text;
}

class FacadeModel : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = new TemporaryFolder;
    train_small(run());
  }
  static void TearDownTestSuite() { delete folder; }
  static std::string run() { return *folder / "run"; }
  static Model load(LoadOptions options = {}) {
    options.device = "cpu";
    options.precision = "f32";
    return Model(run(), options);
  }
  // Standard output of the program in the test's folder.
  static std::string longstride(const std::string& arguments) {
    const std::string command =
        "cd " + folder->path() + " && " + LONGSTRIDE_BINARY + " " + arguments + " >out 2>err </dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0) << arguments << ": " << read_bytes(*folder / "err");
    return read_bytes(*folder / "out");
  }

  static TemporaryFolder* folder;
};
TemporaryFolder* FacadeModel::folder = nullptr;

TEST_F(FacadeModel, SaysWhatItIs) {
  const Model model = load();
  EXPECT_EQ(model.context(), 64);
  EXPECT_EQ(model.step(), 40);
  EXPECT_EQ(model.kind(), "text");
  EXPECT_EQ(model.pattern(), "fixed:16,4");
  EXPECT_GT(model.parameters(), 20000);
  EXPECT_EQ("longstride " + version() + "\n", longstride("--version"));
}

TEST_F(FacadeModel, LogitsAreThoseThatAreScored) {
  const Model model = load();
  const std::string text = counting_text(20);
  const auto bytes = bytes_of(text).first(40);
  const std::vector<float> logits = model.logits(bytes);
  ASSERT_EQ(logits.size(), 40u * 256);
  double bits = 0;
  for (size_t i = 0; i < 40; ++i) {
    double sum = 0;
    for (size_t b = 0; b < 256; ++b) sum += std::exp(static_cast<double>(logits[i * 256 + b]));
    bits -= (logits[i * 256 + bytes[i]] - std::log(sum)) / std::log(2.0);
  }
  EXPECT_NEAR(bits / 40, model.bits_per_byte(bytes), 1e-4);
  for (const size_t seen : {0u, 1u, 5u, 39u}) {
    const std::vector<float> next = model.next_logits(bytes.first(seen));
    ASSERT_EQ(next.size(), 256u);
    for (size_t b = 0; b < 256; ++b) EXPECT_NEAR(next[b], logits[seen * 256 + b], 1e-3);
  }
  EXPECT_TRUE(model.logits({}).empty());
}

TEST_F(FacadeModel, EntropiesAreThoseOfTheLogitsAndOfTheScore) {
  const Model model = load();
  const std::string text = counting_text(60);
  const Entropies first = model.entropies(bytes_of(text).first(40));
  const std::vector<float> logits = model.logits(bytes_of(text).first(40));
  for (size_t i = 0; i < 40; ++i) {
    double sum = 0, entropy = 0;
    for (size_t b = 0; b < 256; ++b) sum += std::exp(static_cast<double>(logits[i * 256 + b]));
    for (size_t b = 0; b < 256; ++b) {
      const double bits = std::log2(sum) - logits[i * 256 + b] / std::log(2.0);
      entropy += std::exp2(-bits) * bits;
      if (b == static_cast<uint8_t>(text[i])) {
        EXPECT_NEAR(first.bits[i], bits, 1e-4);
      }
    }
    EXPECT_NEAR(first.entropy[i], entropy, 1e-4);
  }
  // Windows that overlap score each byte once.
  const std::string longer = counting_text(5000);
  for (const int64_t min_context : {0, 40}) {
    const Entropies all = model.entropies(bytes_of(longer), min_context);
    double sum = 0;
    for (const float bits : all.bits) sum += bits;
    EXPECT_NEAR(sum / static_cast<double>(longer.size()), model.bits_per_byte(bytes_of(longer), min_context),
                1e-5);
    ASSERT_EQ(all.entropy.size(), longer.size());
  }
  EXPECT_TRUE(model.entropies({}).bits.empty());
}

TEST_F(FacadeModel, LogitsOfALongWindowAreThoseOfSteps) {
  const std::string text = counting_text(2000);
  const Model model =
      train(bytes_of(text), {.settings = small_settings({"model.context=5000", "model.layers=1",
                                                         "train.steps=2", "train.batch=1"})});
  const std::vector<float> logits = model.logits(bytes_of(text).first(5000));
  for (const size_t seen : {4095u, 4096u, 4999u}) {
    const std::vector<float> next = model.next_logits(bytes_of(text).first(seen));
    for (size_t b = 0; b < 256; ++b) EXPECT_NEAR(next[b], logits[seen * 256 + b], 1e-3);
  }
}

TEST_F(FacadeModel, TellsHowFarItIsAndEndsWhenTheCallbackThrows) {
  const Model model = load();
  const std::string text = counting_text(8000);
  const auto bytes = bytes_of(text);
  const std::vector<uint8_t> compressed = model.compress(bytes.first(2000));
  const auto each = [&](const auto& call) {
    int64_t last = 0, of = 0;
    call([&](int64_t done, int64_t total) {
      EXPECT_GE(done, last);
      last = done, of = total;
    });
    EXPECT_GT(last, 0);
    EXPECT_EQ(last, of);
    EXPECT_THROW(call([](int64_t, int64_t) { throw 7; }), int);
  };
  each([&](const Progress& p) { model.logits(bytes.first(64), p); });
  each([&](const Progress& p) { model.bits_per_byte(bytes, 0, p); });
  each([&](const Progress& p) { model.entropies(bytes, 0, p); });
  each([&](const Progress& p) { model.compress(bytes.first(2000), p); });
  each([&](const Progress& p) { model.decompress(compressed, p); });
}

TEST_F(FacadeModel, ScoresPartsOfItsData) {
  write_bytes(*folder / "data.txt", counting_text(3000));
  const Model trained = train_on_files(
      {.settings = small_settings({"data.path=" + (*folder / "data.txt"), "data.split=[6000, 1000, 1000]"}),
       .run = *folder / "of_files"});
  const std::string out = longstride("eval of_files --split validation --device cpu --json");
  const size_t at = out.find("\"bits_per_byte\": ");
  ASSERT_NE(at, std::string::npos) << out;
  EXPECT_NEAR(std::stod(out.substr(at + 17)), trained.bits_per_byte_of("validation"), 1e-9);
  EXPECT_NE(trained.bits_per_byte_of("test", 10, 100), trained.bits_per_byte_of("test"));
  EXPECT_THAT(message_of<Error>([&] { trained.bits_per_byte_of("dev"); }),
              HasSubstr("train, validation and test"));
  EXPECT_THAT(message_of<Error>([&] { load().bits_per_byte_of("test"); }), HasSubstr("bytes in memory"));
}

TEST_F(FacadeModel, ScoresAsTheProgramDoes) {
  write_bytes(*folder / "text", counting_text(100));
  const std::string out =
      longstride("eval run --file text --min-context 32 --device cpu --set compute.precision=f32 --json");
  const size_t at = out.find("\"bits_per_byte\": ");
  ASSERT_NE(at, std::string::npos) << out;
  EXPECT_NEAR(std::stod(out.substr(at + 17)), load().bits_per_byte(bytes_of(counting_text(100)), 32), 1e-9);
}

TEST_F(FacadeModel, GeneratesWhatTheProgramSamples) {
  const Model model = load();
  write_bytes(*folder / "prime", "17 18 19 ");
  const std::string sampled = longstride(
      "sample run --prime prime --length 150 --temperature 0.9 --top-k 40 --top-p 0.95 --seed 3 --device cpu "
      "--set "
      "compute.precision=f32");
  GenerateOptions options{.count = 141, .temperature = 0.9, .top_k = 40, .top_p = 0.95, .seed = 3};
  EXPECT_EQ("17 18 19 " + text_of(model.generate(bytes_of("17 18 19 "), options)), sampled);
  // As many as the context has left; of what is longer, the end.
  EXPECT_EQ(text_of(model.generate({})).size(), 64u);
  const std::string text = counting_text(100);
  EXPECT_EQ(text_of(model.generate(bytes_of(text), {.count = 5})).size(), 5u);
}

TEST_F(FacadeModel, GenerationGoesOnWithoutItsModelAndInParts) {
  const GenerateOptions options{.count = 30, .seed = 5};
  const std::string whole = text_of(load().generate({}, options));
  Generation generation = load().generate({}, options);
  std::string parts;
  for (const uint8_t byte : generation) {
    parts += static_cast<char>(byte);
    if (parts.size() == 10) break;
  }
  Generation moved = std::move(generation);
  while (const auto byte = moved.next()) parts += static_cast<char>(*byte);
  EXPECT_EQ(parts, whole);
  EXPECT_FALSE(generation.next().has_value());  // nothing is left where it was moved from
  EXPECT_FALSE(moved.next().has_value());
  EXPECT_EQ(text_of(std::move(moved)), "");
}

TEST_F(FacadeModel, CompressesAsTheProgramDoes) {
  const Model model = load();
  const std::string text = counting_text(300);
  write_bytes(*folder / "plain", text);
  longstride("compress run plain -o plain.lsc --force --set compute.precision=f32 --device cpu");
  const std::vector<uint8_t> compressed = model.compress(bytes_of(text));
  const std::vector<uint8_t> back = model.decompress(compressed);
  EXPECT_EQ(std::string(back.begin(), back.end()), text);
  write_bytes(*folder / "facade.lsc", std::string(compressed.begin(), compressed.end()));
  longstride("decompress run facade.lsc -o again --force");
  EXPECT_EQ(read_bytes(*folder / "again"), text);
  const std::string file = read_bytes(*folder / "plain.lsc");
  const std::vector<uint8_t> of_program = model.decompress(bytes_of(file));
  EXPECT_EQ(std::string(of_program.begin(), of_program.end()), text);
  EXPECT_TRUE(model.decompress(model.compress({})).empty());
}

TEST_F(FacadeModel, PortableIsTheProgramsWithAnyThreadsAndPrecision) {
  const std::string text = counting_text(300);
  const auto portable = [&](LoadOptions options) {
    options.device = "cpu";
    return Model(run(), options).compress(bytes_of(text), {}, {.portable = true});
  };
  const std::vector<uint8_t> compressed = portable({.threads = 1});
  EXPECT_EQ(portable({.precision = "bf16", .threads = 3}), compressed);
  EXPECT_NE(load().compress(bytes_of(text)), compressed);
  write_bytes(*folder / "portable.lsc", std::string(compressed.begin(), compressed.end()));
  longstride("decompress run portable.lsc -o portable.txt --force");
  EXPECT_EQ(read_bytes(*folder / "portable.txt"), text);
  longstride("compress run portable.txt -o of_program.lsc --portable --force");
  const std::string file = read_bytes(*folder / "of_program.lsc");
  const std::vector<uint8_t> back = load({.threads = 2}).decompress(bytes_of(file));
  EXPECT_EQ(std::string(back.begin(), back.end()), text);
  EXPECT_THAT(message_of<Error>([&] { portable({.int8 = true}); }), HasSubstr("without int8"));
  EXPECT_THAT(message_of<Error>([&] { load({.int8 = true}).decompress(compressed); }),
              HasSubstr("weights auto"));
}

TEST_F(FacadeModel, RefusesWhatItDidNotCompress) {
  const Model model = load();
  std::vector<uint8_t> compressed = model.compress(bytes_of("10 11 12 13"));
  const Model other = train_small("", {"train.seed=2"});
  EXPECT_THAT(message_of<Error>([&] { other.decompress(compressed); }), HasSubstr("another model"));
  EXPECT_THAT(message_of<Error>([&] { load({.int8 = true}).decompress(compressed); }), HasSubstr("weights"));
  compressed[compressed.size() / 2] ^= 1;
  EXPECT_THAT(message_of<Error>([&] { model.decompress(compressed); }), HasSubstr("cut off or altered"));
  EXPECT_THAT(message_of<Error>([&] { model.decompress(bytes_of("text")); }),
              HasSubstr("no file that longstride"));
  EXPECT_THAT(message_of<Error>([&] { model.decompress({}); }), HasSubstr("no file that longstride"));
}

TEST_F(FacadeModel, RefusesBadInput) {
  EXPECT_THAT(message_of<Error>([] { Model("no/such/run"); }), HasSubstr("no/such/run"));
  EXPECT_THAT(message_of<Error>([] { Model(run(), {.device = "gpu"}); }), HasSubstr("unknown device 'gpu'"));
  EXPECT_THAT(message_of<Error>([] { Model(run(), {.device = "cpu", .precision = "f16"}); }),
              HasSubstr("needs a GPU"));
  EXPECT_THAT(message_of<Error>([] { Model(run(), {.precision = "f8"}); }), HasSubstr("f8"));
  EXPECT_THAT(message_of<Error>([] { Model(run(), {.threads = -1}); }), HasSubstr("threads = -1"));
  EXPECT_THAT(message_of<Error>([] { Model(run(), {.step = 7}); }), HasSubstr("40"));
  const Model model = load();
  const std::string text = counting_text(100);
  EXPECT_THAT(message_of<Error>([&] { model.logits(bytes_of(text)); }), HasSubstr("context is 64"));
  EXPECT_THAT(message_of<Error>([&] { model.next_logits(bytes_of(text).first(64)); }),
              HasSubstr("context is 64"));
  EXPECT_THAT(message_of<Error>([&] { model.bits_per_byte({}); }), HasSubstr("no data"));
  EXPECT_THAT(message_of<Error>([&] { model.bits_per_byte(bytes_of(text), 64); }), HasSubstr("0 to 63"));
  const auto refused = [&](const GenerateOptions& options) {
    return message_of<Error>([&] { model.generate({}, options); });
  };
  EXPECT_THAT(refused({.count = -1}), HasSubstr("count = -1"));
  EXPECT_THAT(refused({.count = INT64_MAX}), HasSubstr("at most"));
  EXPECT_THAT(refused({.temperature = -1}), HasSubstr("temperature"));
  EXPECT_THAT(refused({.top_k = -1}), HasSubstr("top-k = -1"));
  EXPECT_THAT(refused({.top_p = 0}), HasSubstr("top-p = 0"));
  EXPECT_THAT(refused({.hop = 0}), HasSubstr("hop"));
}

}  // namespace
}  // namespace longstride
