// Compression as a user runs it: the bytes that come back, the size, and one clear line for every mistake.
#include <algorithm>
#include <csignal>
#include <filesystem>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/checksum.h"
#include "longstride/data/modalities/audio.h"
#include "longstride/data/modalities/image.h"

#include "tests/cli/cli_fixture.h"
#include "tests/data/mulaw_file.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;
using nlohmann::json;

class CompressTest : public CliTest {
 protected:
  // Small models gain nothing from threads, and lose much where other tests run beside them.
  void SetUp() override { environment_ = "OMP_NUM_THREADS=1"; }
  void train(const std::string& run = "run", const std::string& more = "") {
    write_small_config();
    const Outcome outcome = longstride("train small.toml --quiet --run " + run + more);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  std::string in_folder(const std::string& name) { return read_bytes(folder_ / name); }
  bool exists(const std::string& name) { return fs::exists(folder_ / name); }

  // Compresses the file, decompresses it under another name and expects the same bytes.
  void expect_round_trip(const std::string& run, const std::string& file, const std::string& options = "") {
    Outcome outcome = longstride("compress " + run + " " + file + " --force" + options);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    outcome = longstride("decompress " + run + " " + file + ".lsc --force -o again");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(in_folder("again") == in_folder(file)) << file;
  }
  // Expects that `name` is refused and nothing is written.
  void expect_refusal(const std::string& run, const std::string& name,
                      const std::vector<std::string>& parts) {
    expect_complaint(longstride("decompress " + run + " " + name + " -o refused"), 1, parts);
    EXPECT_FALSE(exists("refused"));
    for (const std::string& there : names_in(folder_.path()))
      EXPECT_THAT(there, Not(testing::StartsWith(".tmp")));
  }
};

TEST_F(CompressTest, AnyFileComesBack) {
  train();
  write("empty.txt", "");
  write("one.txt", "x");
  std::string every;
  for (int i = 0; i < 3000; ++i) every.push_back(static_cast<char>(i * i % 509));
  write("bytes.bin", every);
  for (const char* file : {"empty.txt", "one.txt", "bytes.bin", "text.txt"}) expect_round_trip("run", file);
  expect_round_trip("run", "bytes.bin", " --weights int8");
  expect_round_trip("run", "bytes.bin", " --set compute.precision=bf16");
  expect_round_trip("run", "bytes.bin", " --step 20 --device cpu");
}

TEST_F(CompressTest, SizeIsWhatEvalPredicts) {
  train("run", " --set train.steps=150");
  const std::string text = in_folder("text.txt");
  std::string large;
  while (large.size() < 60000) large += text.substr(large.size() % 977);
  write("large.txt", large);
  const json eval = json::parse(longstride("eval run --file large.txt --json").out)["results"][0];
  const Outcome outcome = longstride("compress run large.txt --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json result = json::parse(outcome.out);
  const double predicted = eval["bits_per_byte"].get<double>() * static_cast<double>(large.size()) / 8;
  const auto size = static_cast<double>(fs::file_size(folder_ / "large.txt.lsc"));
  EXPECT_EQ(result["compressed_bytes"].get<double>(), size);
  EXPECT_NEAR(result["code_bytes"].get<double>(), predicted, predicted * 0.001);
  // Only the header's few hundred bytes come on top.
  EXPECT_LE(size, predicted * 1.005 + 400);
  EXPECT_NEAR(result["model_bits_per_byte"].get<double>(), eval["bits_per_byte"].get<double>(), 0.002);
  EXPECT_EQ(result["bytes"].get<size_t>(), large.size());
  expect_round_trip("run", "large.txt");
}

TEST_F(CompressTest, PicturesComeBackPixelByPixel) {
  fs::create_directory(folder_ / "pictures");
  for (int i = 0; i < 40; ++i) {
    std::vector<uint8_t> pixels(64);
    for (int at = 0; at < 64; ++at) pixels[at] = static_cast<uint8_t>(at * i);
    write_png(folder_ / ("pictures/" + std::to_string(i) + ".png"), pixels, 8, 8, 1);
  }
  train("paints", " --set data.kind=image --set data.path=pictures --set train.steps=2");
  ASSERT_EQ(longstride("compress paints pictures/7.png -o p.lsc").code, 0);
  const Outcome outcome = longstride("decompress paints p.lsc");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_picture(folder_ / "p.png").pixels, read_picture(folder_ / "pictures/7.png").pixels);
  expect_complaint(longstride("decompress paints p.lsc -o p.jpg"), 2, {"--output p.jpg", "written as .png"});

  const auto refuse = [&](const std::string& file, const std::vector<std::string>& parts) {
    expect_complaint(longstride("compress paints " + file), 1, parts);
    EXPECT_FALSE(exists(file + ".lsc"));
  };
  write_png(folder_ / "grid.png", std::vector<uint8_t>(17 * 8), 8, 17, 1);
  refuse("grid.png", {"grid.png", "8 x 17 x 1", "8 x 8 x 1", "one by one"});
  write_png(folder_ / "colour.png", std::vector<uint8_t>(192), 8, 8, 3);
  refuse("colour.png", {"8 x 8 x 3"});
  write_png(folder_ / "alpha.png", std::vector<uint8_t>(128), 8, 8, 2);
  refuse("alpha.png", {"alpha.png", "transparent"});
  refuse("text.txt", {"text.txt is no PNG"});
  const std::string plain = in_folder("pictures/7.png");
  const auto with_chunk = [&](const std::string& name) {
    return plain.substr(0, 33) + "\0\0\0\0"s + name + "cccc" + plain.substr(33);
  };
  for (const char* chunk : {"gAMA", "iCCP", "cHRM", "sRGB", "tEXt", "iTXt", "eXIf", "pHYs", "acTL", "tIME",
                            "sBIT", "tRNS", "prVt"}) {
    write("more.png", with_chunk(chunk));
    refuse("more.png", {"more.png holds", chunk, "would be lost"});
  }
  write("more.png", plain + "tail");
  refuse("more.png", {"4 bytes behind the end"});
  std::string interlaced = plain;
  interlaced[28] = 1;
  write("more.png", interlaced);
  refuse("more.png", {"interlaced"});
}

TEST_F(CompressTest, SoundComesBackByteForByte) {
  std::vector<uint8_t> sound(4000);
  for (int at = 0; at < 4000; ++at) sound[at] = static_cast<uint8_t>(at * at / 7);
  write_wav(folder_ / "sound.wav", sound, 12000);
  train("plays", " --set data.kind=audio --set data.path=sound.wav --set train.steps=2");
  std::string samples;
  for (int at = 0; at < 1001; ++at) samples.push_back(static_cast<char>(at * at / 11));
  write("mulaw.wav", mulaw_file(samples, 12000));
  write("silent.wav", mulaw_file("", 12000));
  expect_round_trip("plays", "mulaw.wav");
  expect_round_trip("plays", "silent.wav");
  write("slow.wav", mulaw_file(samples, 8000));
  expect_complaint(longstride("compress plays slow.wav"), 1,
                   {"slow.wav has 8000 Hz", "sox slow.wav -r 12000"});
  expect_complaint(longstride("compress plays sound.wav"), 1, {"16 bits, format 1", "sox sound.wav"});
  expect_complaint(longstride("compress plays text.txt"), 1, {"text.txt is no WAV"});
}

TEST_F(CompressTest, DamagedFilesAndOtherModelsAreRefused) {
  train();
  train("other", " --set train.seed=2");
  train("shorter", " --set train.steps=7");
  ASSERT_EQ(longstride("compress run text.txt -o c.lsc --set compute.precision=f32").code, 0);
  expect_refusal("other", "c.lsc", {"c.lsc was compressed with another model", "(step 30)", "other has "});
  expect_refusal("shorter", "c.lsc", {"step 30 of its run"});
  expect_refusal("run", "text.txt", {"text.txt is no file that longstride compressed"});
  expect_refusal("run", "nothing.lsc", {"nothing.lsc"});
  const std::string whole = in_folder("c.lsc");
  for (const double part : {0.0, 0.01, 0.2, 0.5, 0.999}) {
    write("cut.lsc", whole.substr(0, static_cast<size_t>(part * static_cast<double>(whole.size()))));
    expect_refusal("run", "cut.lsc", {"cut.lsc is "});
    std::string altered = whole;
    altered[static_cast<size_t>(part * static_cast<double>(whole.size()))] ^= 4;
    write("altered.lsc", altered);
    expect_refusal("run", "altered.lsc", {"altered.lsc is "});
  }
  expect_complaint(longstride("decompress run c.lsc -o refused --set compute.precision=bf16"), 1,
                   {"products in f32, not bf16"});
  EXPECT_FALSE(exists("refused"));
}

TEST_F(CompressTest, WithItsModelItComesBackWithoutARun) {
  train();
  Outcome outcome = longstride("compress run text.txt -o plain.lsc");
  outcome = longstride("compress run text.txt -o c.lsc --with-model --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json result = json::parse(outcome.out);
  const std::string weights = in_folder("run/model.safetensors"), content = in_folder("c.lsc");
  EXPECT_THAT(content, HasSubstr(weights));
  EXPECT_GT(result["model_bytes"].get<size_t>(), weights.size());
  // The code is the same; what it costs to have the model in it is what is told, and some words of the header.
  EXPECT_NEAR(static_cast<double>(content.size() - in_folder("plain.lsc").size()),
              result["model_bytes"].get<double>(), 60);
  EXPECT_THAT(content, Not(HasSubstr("text.txt"))) << "names of data are nobody's business";
  ASSERT_EQ(longstride("compress run text.txt -o eight.lsc --with-model --weights int8").code, 0);
  outcome = longstride("compress run text.txt -o half.lsc --with-model --set compute.precision=bf16");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr(" bytes; "));
  train("other", " --set train.seed=2");
  outcome = longstride("decompress run c.lsc -o again");  // with the run beside it
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_refusal("other", "c.lsc", {"c.lsc was compressed with another model", "other has "});
  fs::remove_all(folder_ / "run");
  for (const char* file : {"c.lsc", "eight.lsc", "half.lsc"}) {
    outcome = longstride("decompress "s + file + " --force -o again");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(in_folder("again") == in_folder("text.txt")) << file;
    outcome = longstride("verify "s + file);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("which is in it"));
  }
  expect_complaint(longstride("decompress plain.lsc -o refused"), 2, {"plain.lsc holds no model", "RUN"});
  expect_complaint(longstride("decompress other"), 2, {"decompress other: that is a run"});
  expect_complaint(longstride("decompress c.lsc -o refused --set data.path=x"), 2, {"data.path"});
}

TEST_F(CompressTest, PortableFilesAreTheSameOnEveryInstructionSet) {
  train();
  ASSERT_EQ(longstride("compress run text.txt --portable -o c.lsc").code, 0);
  ASSERT_EQ(longstride("compress run text.txt --portable --with-model -o alone.lsc").code, 0);
  for (const char* set : {"generic", "sse4", "avx2", "avx512"}) {
    environment_ = "OMP_NUM_THREADS=2 LONGSTRIDE_INSTRUCTIONS="s + set;
    if (longstride("selftest").code != 0) continue;  // not of this CPU
    ASSERT_EQ(longstride("compress run text.txt --portable --force -o here.lsc").code, 0);
    EXPECT_TRUE(in_folder("here.lsc") == in_folder("c.lsc")) << set;
    for (const char* file : {"run c.lsc", "alone.lsc"}) {
      const Outcome outcome = longstride("decompress "s + file + " --force -o again");
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_TRUE(in_folder("again") == in_folder("text.txt")) << set << " " << file;
    }
  }
  environment_ = "OMP_NUM_THREADS=1";
  expect_complaint(longstride("compress run text.txt --portable --weights int8 -o no.lsc"), 2,
                   {"--portable", "leave out --weights"});
  EXPECT_FALSE(exists("no.lsc"));
  train("other", " --set train.seed=2");
  expect_refusal("other", "c.lsc", {"c.lsc was compressed with another model", "other has "});
}

TEST_F(CompressTest, HostileModelsInFilesAreRefused) {
  train();
  ASSERT_EQ(longstride("compress run text.txt -o c.lsc --with-model").code, 0);
  std::string content = in_folder("c.lsc");
  content.resize(content.size() - 32);
  // As a person would alter it, checksum and all; the parts keep their sizes.
  const auto refuse = [&](const std::string& from, std::string to, const std::vector<std::string>& parts) {
    SCOPED_TRACE(to);
    std::string forged = content;
    const size_t at = forged.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    forged.replace(at, from.size(), to);
    write("forged.lsc", forged + checksum_of(forged.data(), std::ssize(forged)));
    expect_complaint(longstride("decompress forged.lsc -o refused"), 1, parts);
    EXPECT_FALSE(exists("refused"));
    EXPECT_EQ(longstride("verify forged.lsc").code, 1);
  };
  refuse("layers = 2\n", "layers = 9\n", {"the model in forged.lsc", "blocks.2.norm1.gain"});
  refuse("width = 32\n", "width = 96\n", {"the model in forged.lsc", "embedding.token", "(256, 96)"});
  refuse("width = 32\n", "width = 3x\n", {"the model in forged.lsc"});
  refuse("context = 64\n", "context = 99\n", {"its windows have 64 bytes, the model in it has 99"});
  refuse("heads = 2\n", "heads = 3\n", {"the model in forged.lsc: model.heads = 3 does not divide"});
  refuse("\"F32\"", "\"I32\"", {"the model in forged.lsc", "is i32"});
  refuse("{\"__metadata__\"", "[\"__metadata__\"", {"the model in forged.lsc", "header"});
  const size_t weights = content.find("\"model_weights\":") + 16;
  const std::string size = content.substr(weights, content.find_first_of(",}", weights) - weights);
  refuse("\"model_weights\":" + size, "\"model_weights\":" + std::string(size.size(), '9'), {"is missing"});
  refuse("\"model_weights\":" + size, "\"model_weights\":9000000000000000000", {"is missing"});
  refuse("\"model_weights\":" + size, "\"model_weights\":0", {"forged.lsc is damaged"});
  refuse("\"model_weights\":", "\"other_weights\":", {"forged.lsc is damaged", "model_weights"});
  refuse("\"model_config\":", "\"other_config_\":", {"forged.lsc is damaged", "model_config"});
  // Other weights of the same shapes.
  const size_t element =
      content.find(in_folder("run/model.safetensors")) + fs::file_size(folder_ / "run/model.safetensors") - 1;
  std::string forged = content;
  forged[element] ^= 1;
  write("forged.lsc", forged + checksum_of(forged.data(), std::ssize(forged)));
  expect_refusal("", "forged.lsc", {"forged.lsc was compressed with another model"});
  expect_complaint(longstride("verify forged.lsc"), 1, {"1 of 1 files is damaged"});
}

TEST_F(CompressTest, ADeviceThatComputesOtherwiseIsFound) {
  train();
  ASSERT_EQ(longstride("compress run text.txt -o c.lsc").code, 0);
  std::string content = in_folder("c.lsc");
  content.resize(content.size() - 32);
  const auto forge = [&](const std::string& forged) {
    write("forged.lsc", forged + checksum_of(forged.data(), std::ssize(forged)));
  };
  const size_t probe = content.find("\"probe\":\"") + 9;
  std::string other = content;
  other[probe] = other[probe] == '0' ? '1' : '0';
  forge(other);
  expect_refusal("run", "forged.lsc", {"this device does not reproduce", "on the like, cpu: "});
  other.replace(other.find("\"device\":\"cpu: ") + 10, 3, "npu");
  forge(other);
  expect_refusal("run", "forged.lsc",
                 {"this device does not reproduce", "that was on npu: ", "this is cpu: ", "--device"});
  // A difference that the probe did not see. The checksum of the original is the third number of a frame.
  const size_t frame = content.find('\n', content.find('\n') + 1) + 1;
  other = content;
  other[frame + 24] ^= 1;
  forge(other);
  expect_refusal("run", "forged.lsc", {"forged.lsc is damaged", "on the same device"});
  other.replace(other.find("\"device\":\"cpu: ") + 10, 3, "npu");
  forge(other);
  expect_refusal("run", "forged.lsc", {"this device does not reproduce", "that was on npu: "});
}

TEST_F(CompressTest, NamesOfWhatComesBack) {
  train();
  fs::copy_file(folder_ / "text.txt", folder_ / "a.lsc");
  ASSERT_EQ(longstride("compress run a.lsc -o packed.lsc").code, 0);
  const Outcome outcome = longstride("decompress run packed.lsc");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_bytes(folder_ / "packed"), read_bytes(folder_ / "a.lsc"));
}

TEST_F(CompressTest, NothingIsOverwrittenUnasked) {
  train();
  ASSERT_EQ(longstride("compress run text.txt").code, 0);
  const std::string compressed = in_folder("text.txt.lsc");
  expect_complaint(longstride("compress run text.txt --weights int8"), 1, {"text.txt.lsc is there already"});
  expect_complaint(longstride("decompress run text.txt.lsc"), 1, {"text.txt is there already", "--force"});
  EXPECT_EQ(in_folder("text.txt.lsc"), compressed);
  EXPECT_EQ(longstride("decompress run text.txt.lsc --force").code, 0);
  expect_complaint(longstride("compress run text.txt -o text.txt --force"), 1, {"the file to read"});
  fs::rename(folder_ / "text.txt.lsc", folder_ / "named");
  expect_complaint(longstride("decompress run named"), 2, {"named", ".lsc", "--output"});
  expect_complaint(longstride("compress run text.txt -o none/x"), 1, {"there is no folder none"});
  EXPECT_EQ(longstride("compress run text.txt -o /dev/null").code, 0);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  expect_complaint(longstride("compress run missing.txt"), 1, {"missing.txt"});
  expect_complaint(longstride("compress missing text.txt"), 1, {"missing"});
}

TEST_F(CompressTest, InterruptedItLeavesNothing) {
  train();
  write("huge.txt", std::string(20000000, 'a'));
  const pid_t child = fork();
  if (child == 0) {
    if (chdir(folder_.path().c_str()) != 0) _exit(99);
    execl("/bin/sh", "sh", "-c", "exec " LONGSTRIDE_BINARY " compress run huge.txt 2>err.txt", nullptr);
    _exit(98);
  }
  const auto temporary = [&] {
    const std::vector<std::string> names = names_in(folder_.path());
    return std::any_of(names.begin(), names.end(), [](const auto& n) { return n.starts_with(".tmp-huge"); });
  };
  for (int i = 0; i < 10000 && !temporary(); ++i) usleep(1000);
  EXPECT_TRUE(temporary());
  usleep(20000);
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 130);
  EXPECT_THAT(in_folder("err.txt"), HasSubstr("nothing was written"));
  EXPECT_FALSE(temporary());
  EXPECT_FALSE(exists("huge.txt.lsc"));
}

}  // namespace
}  // namespace longstride
