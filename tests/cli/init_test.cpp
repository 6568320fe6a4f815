// `longstride init` and `longstride data`.
#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using namespace std::string_literals;
namespace fs = std::filesystem;
using testing::HasSubstr;

class InitTest : public CliTest {
 protected:
  void SetUp() override { write_small_config(); }
};

TEST_F(InitTest, ItsConfigChoosesWhatATwoLineConfigWould) {
  const Outcome outcome = longstride("init text.txt");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("next: longstride train text.toml"));
  const std::string config = read_bytes(folder_ / "text.toml");
  EXPECT_THAT(config, testing::StartsWith("# text.txt: "));
  EXPECT_THAT(config, HasSubstr("\nminutes = 10.0  # "));
  EXPECT_LT(std::count(config.begin(), config.end(), '\n'), 30);
  write("two.toml", "[data]\npath = 'text.txt'\n");
  auto written = nlohmann::json::parse(longstride("inspect text.toml --json").out);
  auto chosen = nlohmann::json::parse(longstride("inspect two.toml --json").out);
  for (auto* json : {&written, &chosen}) json->erase("chosen");
  EXPECT_EQ(written, chosen);
  EXPECT_EQ(longstride("train text.toml --quiet --run r --set train.minutes=0.02").code, 0);
  const std::string trained = read_bytes(folder_ / "r/config.toml");
  EXPECT_THAT(trained, HasSubstr("optimizer = \"muon\""));
}

TEST_F(InitTest, NothingIsReplacedUnasked) {
  write("text.toml", "mine");
  expect_complaint(longstride("init text.txt"), 1, {"text.toml is there already", "--force"});
  EXPECT_EQ(read_bytes(folder_ / "text.toml"), "mine");
  EXPECT_EQ(longstride("init text.txt --force --minutes 3").code, 0);
  EXPECT_THAT(read_bytes(folder_ / "text.toml"), HasSubstr("minutes = 3.0"));
  EXPECT_THAT(longstride("init text.txt -o -").out, HasSubstr("[model]"));
  expect_complaint(longstride("init nowhere.txt"), 1, {"nowhere.txt"});
  expect_complaint(longstride("init text.txt -o x.toml --device cpu --gpu-memory 8Gi"), 2, {"--gpu-memory"});
  expect_complaint(longstride("init text.txt -o x.toml --set train.steps=3"), 2, {"only fields of compute"});
  expect_complaint(longstride("init text.txt -o x.toml --minutes 0"), 2, {"--minutes"});
  EXPECT_FALSE(fs::exists(folder_ / "x.toml"));
}

TEST_F(InitTest, DataTellsKindPartsAndYardsticks) {
  const Outcome outcome = longstride("data text.txt");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("kind       text, by what most of it looks like"));
  EXPECT_THAT(outcome.out, HasSubstr("line 0 of the log"));
  const auto json =
      nlohmann::json::parse(longstride("data text.txt --json --set data.split=[0.5,0.5,0]").out);
  const auto size = static_cast<int64_t>(fs::file_size(folder_ / "text.txt"));
  EXPECT_EQ(json["bytes"], size);
  EXPECT_EQ(json["parts"]["train"].get<int64_t>() + json["parts"]["validation"].get<int64_t>(), size);
  EXPECT_GT(json["entropies"][0], json["entropies"][1]);
  EXPECT_GT(json["entropies"][1], json["entropies"][3]);
  EXPECT_LT(json["xz_bits"].get<double>(), 8);
  EXPECT_EQ(longstride("data text.txt --preview p.txt").code, 0);
  expect_complaint(longstride("data text.txt --preview p.png"), 2, {"p.png", "text is shown as text"});
  EXPECT_THAT(read_bytes(folder_ / "p.txt"), testing::StartsWith("line 0"));
}

TEST_F(InitTest, PicturesHaveAGridAndSkippedFilesAreNamed) {
  // Eight grey pictures of 2 x 2 as an IDX file, beside a text.
  fs::create_directories(folder_ / "pictures");
  std::string idx("\0\0\x08\x03\0\0\0\x08\0\0\0\x02\0\0\0\x02", 16);
  for (int i = 0; i < 32; ++i) idx += static_cast<char>(8 * i);
  write_bytes(folder_ / "pictures/a.idx", idx);
  write("pictures/readme.txt", "not a picture");
  expect_complaint(longstride("data pictures --set data.kind=image --preview grid.jpg"), 2,
                   {"grid.jpg", "pictures are shown as a grid, .png"});
  const Outcome outcome = longstride("data pictures --set data.kind=image --preview grid.png");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("2 x 2 x 1"));
  EXPECT_THAT(outcome.out, HasSubstr("skipped 1 file: 1 .txt"));
  EXPECT_THAT(outcome.err, HasSubstr("cannot be split as they are"));
  EXPECT_THAT(read_bytes(folder_ / "grid.png"), testing::StartsWith("\x89PNG"));
}

TEST_F(InitTest, BadDataAreOneClearLine) {
  write("empty", "");
  for (const char* command : {"data empty", "init empty", "data nowhere"})
    expect_complaint(longstride(command), 1, {std::string(command).substr(5)});
  write_bytes(folder_ / "noise", "\x01\x02\xff\xfe\0\x80"s);
  EXPECT_EQ(longstride("data noise --set data.split=[1,0,0]").code, 0);  // any bytes are text
}

}  // namespace
}  // namespace longstride
