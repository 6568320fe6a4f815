// The commands of docs/tutorials and of the README run as they stand there, in their order, on small data that are made
// here.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>
#include <sndfile.h>

#include "longstride/base/text.h"

#include "tests/cli/cli_fixture.h"
#include "tests/data/fixtures.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class TutorialTest : public CliTest {
 protected:
  // What stands four columns in. All commands of a page, one a line.
  static std::vector<std::string> commands_of(const std::string& page) {
    std::vector<std::string> commands;
    for (const std::string& line :
         split(read_bytes(std::string(LONGSTRIDE_DOCS) + "/tutorials/" + page), '\n'))
      if (line.starts_with("    ")) commands.push_back(line.substr(4));
    return commands;
  }

  // The README's first block of commands below a heading.
  static std::vector<std::string> commands_below(const std::string& heading) {
    const std::string readme = read_bytes(std::string(LONGSTRIDE_DOCS) + "/../README.md");
    const size_t begin = readme.find("```\n", readme.find("\n## " + heading + "\n")) + 4;
    std::vector<std::string> commands;
    for (const std::string& line : split(readme.substr(begin, readme.find("```", begin) - begin), '\n'))
      if (!line.empty()) commands.push_back(line);
    return commands;
  }

  void run_page(const std::string& page, size_t least_commands) {
    run_commands(page, commands_of(page), least_commands);
  }

  void run_commands(const std::string& page, const std::vector<std::string>& commands,
                    size_t least_commands) {
    EXPECT_GE(commands.size(), least_commands);
    const std::string surroundings = "cd " + folder_.path() + " && export XDG_CACHE_HOME=" + folder_.path() +
                                     "/cache PATH=" + fs::path(LONGSTRIDE_BINARY).parent_path().string() +
                                     ":$PATH\n";
    for (const std::string& command : commands) {
      write("command.sh", surroundings + "set -eu -o pipefail\n" + command + "\n");
      const int status = std::system(("bash " + (folder_ / "command.sh") + " >" + (folder_ / "out.txt") +
                                      " 2>" + (folder_ / "err.txt") + " </dev/null")
                                         .c_str());
      ASSERT_EQ(status, 0) << page << ": " << command << "\n" << read_bytes(folder_ / "err.txt");
    }
  }

  // Sizes of the files that the page's commands make.
  void expect_files(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      std::error_code missing;
      EXPECT_GT(fs::file_size(folder_ / name, missing), 0u) << name;
      EXPECT_FALSE(missing) << name;
    }
  }
};

TEST_F(TutorialTest, Readme) {
  std::string log;
  for (int i = 0; i < 500; ++i) log += "Dear Ann, we are " + std::to_string(i * i % 89) + " today.\n";
  write("my.txt", log);
  data_test::write_compressed(folder_ / "my.log.xz", data_test::Pack::xz, {log.begin(), log.end()});
  run_commands("README", commands_below("Your own bytes"), 18);
  expect_files(
      {"runs/config/model.safetensors", "long.txt", "alone.lsc", "any.lsc", "laws.svg", "report.html"});
  EXPECT_EQ(read_bytes(folder_ / "again.txt"), log);
}

TEST_F(TutorialTest, Text) {
  std::string text;
  for (int i = 0; i < 500; ++i)
    text += "Dear " + std::string(i % 3 == 0 ? "Ann" : "Bob") + ", we are " + std::to_string(i * i % 89) +
            " today.\n";
  write("letters.txt", text);
  run_page("text.md", 9);
  expect_files({"letters.toml", "runs/letters/model.safetensors", "letters.lsc", "again.txt"});
}

TEST_F(TutorialTest, Pictures) {
  // Slopes of two colours, 8 pixels wide.
  constexpr int64_t kSide = 8;
  for (int picture = 1; picture <= 120; ++picture) {
    data_test::Bytes pixels;
    for (int64_t i = 0; i < kSide * kSide; ++i)
      for (const int64_t value : {i % kSide * picture, i / kSide * 20, int64_t{picture}})
        pixels.push_back(static_cast<uint8_t>(value));
    data_test::write_file(folder_ / fmt::format("photos/{:03}.png", picture),
                          data_test::make_png(pixels, kSide, kSide, {.colour_type = PNG_COLOR_TYPE_RGB}));
  }
  run_page("pictures.md", 8);
  expect_files({"grid.png", "pattern.png", "painted.png", "completed.png", "report.html"});
}

TEST_F(TutorialTest, Music) {
  fs::create_directories(folder_ / "songs");
  for (const auto& [name, hertz] : {std::pair{"a", 220.0}, {"b", 330.0}, {"c", 440.0}})
    data_test::write_sound(folder_ / "songs/" + name + ".wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 12000, 1,
                           data_test::sine(12000, 1, hertz, 0.5, 1.5));
  run_page("music.md", 8);
  expect_files({"wave.svg", "new.wav", "on.wav", "long.wav", "long.state"});
}

TEST_F(TutorialTest, Genome) {
  std::string fasta = ">one\r\n";
  uint32_t random = 1;
  for (int line = 0; line < 600; ++line) {
    for (int i = 0; i < 60; ++i) fasta += "ACGTacgt"[(random = random * 1664525u + 1013904223u) >> 29];
    fasta += line % 200 == 0 ? "\n>more\n" : "\n";
  }
  write("genome.fa", fasta);
  run_page("genome.md", 8);
  expect_files({"curve.csv", "bits.csv", "runs/contexts/report.html", "made.txt"});
  EXPECT_EQ(read_bytes(folder_ / "genome.txt").find_first_not_of("ACGT"), std::string::npos);
}

TEST_F(TutorialTest, Logs) {
  std::string log, today;
  for (int i = 0; i < 700; ++i) {
    const std::string line = fmt::format("2026-11-29T06:{:02}:{:02} host{} GET /page/{} 200 {}ms\n",
                                         i / 60 % 60, i % 60, i * 7 % 5, i * i % 37, i * 31 % 97);
    log += line;
    if (i < 50) today += line;
    if (i == 24) today += "2026-11-29T06:00:25 host1 kernel: Out of memory: Killed process 4711\n";
  }
  write("app.log", log);
  write("today.log", today);
  run_page("logs.md", 10);
  expect_files({"surprise.html", "today.lsc"});
  // The page's own claim: the odd line is the most surprising one.
  const std::vector<std::string> commands = commands_of("logs.md");
  for (const std::string& command : commands)
    if (command.starts_with("awk")) {
      const std::string run = "cd " + folder_.path() + " && " + command + " >lines.txt 2>err.txt";
      EXPECT_EQ(std::system(run.c_str()), 0);
    }
  const std::string first = split(read_bytes(folder_ / "lines.txt"), '\n')[0];
  EXPECT_THAT(first, testing::EndsWith(" 26"));
}

}  // namespace
}  // namespace longstride
