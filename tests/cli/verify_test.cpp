// `longstride verify` finds each kind of damage, and nothing where there is none.
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class VerifyTest : public CliTest {
 protected:
  VerifyTest() {
    write_small_config("keep_last = 3\n");
    EXPECT_EQ(longstride("train small.toml --quiet --run runs/a").code, 0);
    EXPECT_EQ(longstride("compress runs/a text.txt").code, 0);
    EXPECT_EQ(longstride("sample runs/a --length 20 --output s.txt --state s.state").code, 0);
  }
  std::string content(const std::string& name) { return read_bytes(folder_ / name); }
  // The outcome with one byte of the file changed, which is then put right.
  Outcome with_damage(const std::string& name, size_t at) {
    const std::string was = content(name);
    std::string damaged = was;
    damaged.at(at) ^= 1;
    write(name, damaged);
    const Outcome outcome = longstride("verify runs text.txt.lsc s.state");
    write(name, was);
    return outcome;
  }
};

TEST_F(VerifyTest, WhatWasWrittenIsWhole) {
  const Outcome all = longstride("verify runs text.txt.lsc s.state");
  EXPECT_EQ(all.code, 0) << all.err << all.out;
  EXPECT_EQ(all.err, "");
  for (const char* part : {"runs/a/config.toml", "runs/a/data.json", "runs/a/best.json", "step-00000010",
                           "step-00000030", "runs/a/model.safetensors", "runs/a/pins/step-", "metrics.jsonl",
                           "commands.jsonl", "text.txt.lsc", "s.state", " are whole, "})
    EXPECT_THAT(all.out, HasSubstr(part));
  EXPECT_THAT(all.out, Not(HasSubstr("DAMAGED")));
  const auto json = nlohmann::json::parse(longstride("verify runs/a --json").out);
  EXPECT_TRUE(json.at(0).at("whole").get<bool>());
}

TEST_F(VerifyTest, EachKindOfDamageIsNamed) {
  std::string pin;
  for (const auto& entry : fs::directory_iterator(folder_ / "runs/a/pins"))
    pin = entry.path().filename().string();
  // Weights have several names of one file; only names of their own are damaged here.
  fs::copy_file(folder_ / ("runs/a/pins/" + pin), folder_ / "copy");
  fs::rename(folder_ / "copy", folder_ / ("runs/a/pins/" + pin));
  for (const std::string& name :
       {std::string("runs/a/config.toml"), std::string("runs/a/data.json"), std::string("runs/a/best.json"),
        "runs/a/pins/" + pin, std::string("runs/a/checkpoints/step-00000010/state.safetensors"),
        std::string("runs/a/checkpoints/step-00000020/checksums.json"), std::string("text.txt.lsc"),
        std::string("s.state")}) {
    // The first byte of texts, the last of weights, whose metadata come first.
    const bool tensors = name.ends_with(".safetensors");
    const Outcome outcome = with_damage(name, tensors ? content(name).size() - 1 : 0);
    EXPECT_EQ(outcome.code, 1) << name << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("DAMAGED")) << name;
    EXPECT_THAT(outcome.err, HasSubstr(" damaged")) << name;
  }
  EXPECT_EQ(longstride("verify runs text.txt.lsc s.state").code, 0);
}

TEST_F(VerifyTest, AConfigThatIsCutIsDamagedAndAPipeIsNoFile) {
  const std::string whole = read_bytes(folder_ / "runs/a/config.toml");
  for (const size_t end : {size_t{0}, whole.find("[train]"), whole.find("[compute]")}) {
    write("runs/a/config.toml", whole.substr(0, end));
    EXPECT_THAT(longstride("verify runs/a").out,
                HasSubstr("DAMAGED: runs/a/config.toml is damaged: it does not say"));
    expect_complaint(longstride("train runs/a"), 1, {"config.toml is damaged"});
  }
  write("runs/a/config.toml", whole);
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(longstride("verify pipe").out, HasSubstr("pipe is not a regular file"));
  expect_complaint(longstride("verify ''"), 2, {"the value is empty"});
}

TEST_F(VerifyTest, AFolderThatCannotBeListedIsNotWhole) {
  fs::remove_all(folder_ / "runs/a/pins");
  write("runs/a/pins", "no folder");
  const Outcome outcome = longstride("verify runs/a");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("runs/a/pins"), HasSubstr("cannot list it: Not a directory")));
}

TEST_F(VerifyTest, FilesThatAreMissingAreNamed) {
  fs::remove(folder_ / "runs/a/checkpoints/step-00000020/state.safetensors");
  const Outcome outcome = longstride("verify runs/a");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("step-00000020"), HasSubstr("lacks one of its files")));
  expect_complaint(longstride("verify nothing text.txt --json"), 1, {"2 of 2 files are damaged"});
  expect_complaint(longstride("verify"), 2, {"path"});
}

}  // namespace
}  // namespace longstride
