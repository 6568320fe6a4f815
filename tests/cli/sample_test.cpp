// Sampling as a user runs it: sessions that are killed, interrupted, resumed and branched, and one clear
// line for every mistake.
#include <csignal>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/checksum.h"
#include "longstride/data/modalities/audio.h"
#include "longstride/data/modalities/image.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

class SampleTest : public CliTest {
 protected:
  void train(const std::string& run = "run", const std::string& more = "") {
    write_small_config();
    ASSERT_EQ(longstride("train small.toml --quiet --run " + run + more).code, 0);
  }

  // Trains a run on pictures of 8 x 8, or on sound.
  void train_on_pictures() {
    fs::create_directory(folder_ / "pictures");
    for (int i = 0; i < 40; ++i) {
      std::vector<uint8_t> pixels(64);
      for (int at = 0; at < 64; ++at) pixels[at] = static_cast<uint8_t>(at * i);
      write_png(folder_ / "pictures/" + std::to_string(i) + ".png", pixels, 8, 8, 1);
    }
    write_small_config();
    ASSERT_EQ(
        longstride("train small.toml --quiet --run paints --set data.kind=image --set data.path=pictures "
                   "--set train.steps=2")
            .code,
        0);
  }
  void train_on_sound() {
    std::vector<uint8_t> sound(4000);
    for (int at = 0; at < 4000; ++at) sound[at] = static_cast<uint8_t>(at * at / 7);
    write_wav(folder_ / "sound.wav", sound, 12000);
    write_small_config();
    ASSERT_EQ(
        longstride("train small.toml --quiet --run plays --set data.kind=audio --set data.path=sound.wav "
                   "--set train.steps=2")
            .code,
        0);
  }

  // Starts `longstride sample arguments` and returns when the file `watched` has grown by `bytes`.
  pid_t start(const std::string& arguments, const std::string& watched, uintmax_t bytes) {
    std::error_code none_yet;
    uintmax_t first = fs::file_size(folder_ / watched, none_yet);
    bool seen = !none_yet;
    const std::string command =
        "exec " LONGSTRIDE_BINARY " sample " + arguments + " >out.txt 2>err.txt </dev/null";
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder_.path().c_str()) != 0) _exit(99);
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(98);
    }
    for (int i = 0; i < 20000; ++i) {
      const uintmax_t size = fs::file_size(folder_ / watched, none_yet);
      if (!none_yet && !seen) first = size;
      seen = seen || !none_yet;
      if (!none_yet && size >= first + bytes) return child;
      usleep(1000);
    }
    ADD_FAILURE() << "no progress: " << read_bytes(folder_ / "err.txt");
    return child;
  }

  // The exit code, or minus the signal that ended it.
  int stop(pid_t child, int signal) {
    kill(child, signal);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string in_folder(const std::string& name) { return read_bytes(folder_ / name); }
};

// ---- sessions ----

TEST_F(SampleTest, KilledOrInterruptedItEndsWithTheSameBytes) {
  train();
  const std::string options = "run -n 3 --streams 2 --length 3000 --hop 0.4 --seed 5";
  ASSERT_EQ(longstride("sample " + options + " -o whole.txt").code, 0);
  const std::string save = " --save-every 0.01";
  pid_t child = start(options + " -o part.txt --state s" + save, "s", 500);
  EXPECT_EQ(stop(child, SIGKILL), -SIGKILL);
  EXPECT_FALSE(fs::exists(folder_ / "part-1.txt"));

  child = start("run --resume s --streams 3" + save, "s", 500);
  EXPECT_EQ(stop(child, SIGINT), 130);
  EXPECT_THAT(in_folder("err.txt"), AllOf(HasSubstr("wrote 3 files"), HasSubstr("of 3 samples are finished"),
                                          HasSubstr("longstride sample run --resume s")));
  const std::string part = in_folder("part-1.txt");
  EXPECT_EQ(part, in_folder("whole-1.txt").substr(0, part.size()));

  child = start("run --resume s" + save, "s", 500);
  EXPECT_EQ(stop(child, SIGTERM), 143);
  const Outcome outcome = longstride("sample run --resume s");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* end : {"-1.txt", "-2.txt", "-3.txt"})
    EXPECT_TRUE(in_folder(std::string("whole") + end) == in_folder(std::string("part") + end)) << end;
  // Nothing is left to do, which is not an error.
  EXPECT_THAT(longstride("sample run --resume s --json").out, HasSubstr("\"generated_bytes\": 0"));
  for (const std::string& name : names_in(folder_.path()))
    EXPECT_THAT(name, Not(testing::StartsWith(".tmp")));
}

TEST_F(SampleTest, InterruptedWithoutAStateItSaysWhatWouldHaveHelped) {
  train();
  // The size of the output shows the progress.
  const pid_t child = start("run --length 10000000", "out.txt", 2000);
  EXPECT_EQ(stop(child, SIGINT), 130);
  EXPECT_THAT(in_folder("err.txt"), HasSubstr("--state FILE"));
}

TEST_F(SampleTest, StreamsAndStepsDoNotMatter) {
  train();
  const std::string one = longstride("sample run -n 5 --length 100 --streams 1").out;
  EXPECT_EQ(one.size(), 500u);
  EXPECT_EQ(longstride("sample run -n 5 --length 100 --streams 3").out, one);
  EXPECT_EQ(longstride("sample run -n 5 --length 100").out, one);
  EXPECT_EQ(longstride("sample run -n 2 --length 100").out, one.substr(0, 200));
  EXPECT_EQ(longstride("sample run --length 100 --exact-scores").out.size(), 100u);
}

TEST_F(SampleTest, BranchesGoTheirOwnWaysAndLeaveTheStateAsItIs) {
  train();
  const std::string whole = longstride("sample run -n 2 --length 90 --seed 3 --state s").out;
  const std::string state = in_folder("s");
  expect_complaint(longstride("sample run --resume s --branch 2"), 1, {"nothing to branch", "90", "length"});
  const auto branches = [&](const std::string& more) {
    const Outcome outcome = longstride("sample run --resume s --json --length 140 " + more);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out)["samples"].get<std::vector<std::string>>();
  };
  const std::vector<std::string> three = branches("--branch 3"), one = branches("--branch 1");
  ASSERT_EQ(three.size(), 6u);
  EXPECT_EQ(one, (std::vector<std::string>{three[0], three[3]}));
  EXPECT_NE(three[0], three[1]);
  EXPECT_NE(branches("--branch 1 --seed 4"), one);
  EXPECT_NE(branches("--branch 1 --temperature 0.5 --top-k 10 --top-p 0.9"), one);
  EXPECT_EQ(in_folder("s"), state);

  // What no machine could hold is refused at once.
  const std::string many = "--branch 100000000 --length 1000000000";
  expect_complaint(longstride("sample run --resume s " + many), 1,
                   {"so many samples (200000000)", "--branch"});
  // Of the names that it would write, one is read; another of that kind may be.
  write("x-3.txt", "prime");
  expect_complaint(longstride("sample run -n 3 --length 20 -o x.txt --prime x-3.txt"), 1,
                   {"the file to read"});
  EXPECT_EQ(longstride("sample run -n 2 --length 20 -o x.txt --prime x-3.txt").code, 0);
  expect_complaint(longstride("sample run -n 100000000 --length 1000000000 -o nowhere/x.txt"), 1,
                   {"no folder nowhere"});
  expect_complaint(longstride("sample run -n 100000000 --length 1000000000 -o x.txt"), 1,
                   {"so many samples", "--count"});

  // Branches have a session of their own, if one is asked for.
  branches("--branch 3 --state t");
  EXPECT_EQ(nlohmann::json::parse(longstride("sample run --resume t --json").out)["samples"], three);
}

TEST_F(SampleTest, AFileThatIsNoStateIsNotTakenForOne) {
  train();
  expect_complaint(longstride("sample run --state small.toml"), 1,
                   {"no state of samples", "name another file"});
  ASSERT_EQ(longstride("sample run --length 20 --state 'a state'").code, 0);
  expect_complaint(longstride("sample run --state 'a state'"), 1, {"--resume 'a state'"});
}

// ---- options that a state has ----

TEST_F(SampleTest, OptionsThatContradictTheStateAreNamed) {
  train();
  write("prime.txt", "line");
  ASSERT_EQ(longstride("sample run -n 2 --length 90 --seed 3 --temperature 0.8 --state s").code, 0);
  for (const char* option :
       {"--seed 4", "--temperature 0.9", "--top-k 3", "--top-p 0.9", "--length 91", "--length 0", "--count 3",
        "--hop 0.6", "--weights int8", "--step 20", "--exact-scores", "--prime prime.txt",
        "--prime-fraction 0.5", "--state t", "--set compute.precision=f16"}) {
    const std::string name = std::string(option).substr(0, std::string(option).find(' '));
    const Outcome outcome = longstride(std::string("sample run --resume s ") + option);
    if (name != "--set") {
      expect_complaint(outcome, 2, {name, " s "});
    } else {
      EXPECT_NE(outcome.code, 0);
    }
  }
  // Options that the state has may be repeated.
  EXPECT_EQ(longstride("sample run --resume s -n 2 --length 90 --seed 3 --temperature 0.8 --state s").code,
            0);
  EXPECT_EQ(longstride("sample run --resume s --save-every 1").code, 0);
  for (const char* option :
       {"--count 3", "--hop 0.6", "--weights int8", "--exact-scores", "--prime prime.txt"})
    EXPECT_EQ(longstride(std::string("sample run --resume s --length 91 --branch 1 ") + option).code, 2)
        << option;
  expect_complaint(longstride("sample run --resume s --branch 1 --length 91 --state s"), 2, {"--state s"});
  expect_complaint(longstride("sample run --branch 2"), 2, {"--branch", "--resume"});
  expect_complaint(longstride("sample run --save-every 2"), 2, {"--save-every", "--state"});
  expect_complaint(longstride("sample run --state same.txt -o same.txt"), 2, {"same.txt"});
  expect_complaint(longstride("sample run --hop 0"), 2, {"--hop 0"});
}

TEST_F(SampleTest, APrecisionThatTheStateHasNot) {
  train();
  ASSERT_EQ(longstride("sample run --length 90 --state s --set compute.precision=f32").code, 0);
  expect_complaint(longstride("sample run --resume s --set compute.precision=bf16"), 2,
                   {"compute.precision", "f32", "bf16"});
  EXPECT_EQ(longstride("sample run --resume s").code, 0);
  EXPECT_EQ(longstride("sample run --resume s --branch 1 --length 100 --set compute.precision=bf16").code, 0);
}

// ---- states that cannot be used ----

TEST_F(SampleTest, StatesOfOthersAndDamagedOnesAreRefused) {
  train();
  train("other", " --set train.seed=2");
  const std::string all = longstride("sample run --length 90 --state s").out;
  const Outcome other = longstride("sample other --resume s");
  expect_complaint(other, 1, {"another model", "(step 30 of run)", "other has "});
  const std::string digest =
      nlohmann::json::parse(longstride("sample run --length 8 --json").out)["model"].get<std::string>();
  EXPECT_THAT(other.err, HasSubstr(digest.substr(0, 8)));
  EXPECT_EQ(digest.size(), 32u);
  expect_complaint(longstride("sample other --resume s --branch 1 --length 99"), 1, {"another model"});
  train("shorter", " --set train.steps=7");
  expect_complaint(longstride("sample shorter --resume s"), 1, {"step 30 of run", "shorter"});

  const std::string state = in_folder("s");
  write("cut", state.substr(0, state.size() / 2));
  expect_complaint(longstride("sample run --resume cut"), 1, {"cut is damaged"});
  std::string altered = state;
  altered[state.size() - 40] ^= 1;
  write("altered", altered);
  expect_complaint(longstride("sample run --resume altered"), 1, {"altered is damaged"});
  expect_complaint(longstride("sample run --resume text.txt"), 1, {"text.txt is not the state"});
  expect_complaint(longstride("sample run --resume nothing"), 1, {"nothing"});

  expect_complaint(longstride("sample run --state s"), 1, {"s", "there already", "--resume s"});
  expect_complaint(longstride("sample run --resume s --branch 1 --length 99 --state cut"), 1, {"cut"});
  EXPECT_EQ(in_folder("s"), state);
  EXPECT_EQ(longstride("sample run --resume s").out, all);
}

TEST_F(SampleTest, AMachineThatDrawsOtherBytesIsFound) {
  train();
  ASSERT_EQ(longstride("sample run --length 60 --state s").code, 0);
  std::string state = in_folder("s");
  state.resize(state.size() - 32);
  const std::string from = "\"length\":60", to = "\"length\":64";
  for (size_t at; (at = state.find(from)) != std::string::npos;) state.replace(at, from.size(), to);
  const auto resume = [&] {
    write("forged", state + checksum_of(state.data(), std::ssize(state)));
    return longstride("sample run --resume forged");
  };
  EXPECT_EQ(resume().out, longstride("sample run --length 64").out);
  EXPECT_THAT(resume().err, Not(HasSubstr("saved on")));
  // Another device may draw other bytes later, even if it drew the same so far.
  const std::string kept = state;
  state.replace(state.find("\"device\":\"cpu: ") + 15, 3, "Old");
  const Outcome elsewhere = resume();
  EXPECT_EQ(elsewhere.code, 0);
  EXPECT_THAT(elsewhere.err,
              AllOf(HasSubstr("note: forged was saved on cpu: Old"), HasSubstr("may still differ")));
  state = kept;
  state.back() ^= 1;  // as if another machine had drawn it
  const Outcome outcome = resume();
  expect_complaint(outcome, 1,
                   {"forged: this machine or device does not reproduce the state: byte 60 of sample 1",
                    "saved on cpu: ", "--branch"});
  EXPECT_EQ(outcome.out, "");
}

// A state from elsewhere does not decide about files and settings.
TEST_F(SampleTest, AStateDoesNotDecideWhichFileIsReplaced) {
  train();
  fs::create_directories(folder_ / "home");
  write("home/notes", "mine");
  write("home/.profile", "mine");
  ASSERT_EQ(longstride("sample run --length 60 --state s -o result.txt").code, 0);
  const std::string state = in_folder("s"), own = in_folder("result.txt");
  const auto forge = [&](const std::string& from, const std::string& to) {
    std::string forged = state.substr(0, state.size() - 32);
    const size_t at = forged.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    forged.replace(at, from.size(), to);
    write("home/evil", forged + checksum_of(forged.data(), std::ssize(forged)));
  };
  const std::string output = "\"output\":\"result.txt\"";
  forge(output, "\"output\":\"" + (folder_ / "home/notes") + "\"");
  expect_complaint(longstride("sample run --resume home/evil"), 1,
                   {"home/notes is there, and home/evil did not write it", "--output"});
  forge(output, "\"output\":\"../home/.profile\"");
  expect_complaint(longstride("sample run --resume home/evil"), 2, {"home/.profile", "--output"});
  EXPECT_EQ(in_folder("home/notes") + in_folder("home/.profile"), "minemine");
  // The output goes beside the state, whatever folder the state names.
  forge(output, "\"output\":\"/nowhere/new.txt\"");
  const Outcome outcome = longstride("sample run --resume home/evil");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("the output was /nowhere/new.txt"));
  EXPECT_EQ(in_folder("home/new.txt"), own);
  // It may replace what it wrote itself. A file that somebody else changed is replaced only if the user
  // names it.
  EXPECT_EQ(longstride("sample run --resume s").code, 0);
  write("result.txt", "edited");
  expect_complaint(longstride("sample run --resume s"), 1, {"result.txt is there"});
  EXPECT_EQ(in_folder("result.txt"), "edited");
  EXPECT_EQ(longstride("sample run --resume s -o result.txt").code, 0);
  EXPECT_EQ(in_folder("result.txt"), own);

  for (const char* setting : {"data.path=nothing", "data.cache=home", "compute.threads=100000",
                              "compute.threads={a.a=1}", "train.steps=x"}) {
    forge("\"settings\":[]", std::string("\"settings\":[\"") + setting + "\"]");
    EXPECT_EQ(longstride("sample run --resume home/evil -o taken.txt").code, 0) << setting;
  }
  forge("\"settings\":[]", "\"settings\":[\"compute.instructions=nothing\"]");
  expect_complaint(longstride("sample run --resume home/evil -o taken.txt"), 2, {"compute.instructions"});
}

TEST_F(SampleTest, APictureOfAnotherSizeInAStateIsRefused) {
  train_on_pictures();
  ASSERT_EQ(longstride("sample paints --state s -o p.png").code, 0);
  std::string state = in_folder("s");
  state.resize(state.size() - 32);
  const std::string from = "\"length\":64,\"prime\"";
  ASSERT_NE(state.find(from), std::string::npos);
  state.replace(state.find(from), from.size(), "\"length\":10000000000,\"prime\"");
  write("forged", state + checksum_of(state.data(), std::ssize(state)));
  expect_complaint(longstride("sample paints --resume forged -o q.png"), 1,
                   {"a picture of 10000000000 bytes"});
  std::string config = in_folder("paints/config.toml");
  const size_t at = config.find("image_height");
  config.replace(at, config.find('\n', at) - at, "image_height = 4611686018427387908");
  write("paints/config.toml", config);
  EXPECT_EQ(longstride("sample paints -o q.png").code, 1);
}

// ---- outputs ----

TEST_F(SampleTest, WhatCannotBeWrittenIsSaidBeforeSampling) {
  train();
  fs::create_directory(folder_ / "folder");
  for (const char* option : {"--output", "--state"}) {
    const auto complain = [&](const std::string& path, const std::string& part) {
      expect_complaint(longstride("sample run --length 100000000 " + std::string(option) + " " + path), 1,
                       {option, path, part});
    };
    complain("none/file", "there is no folder none");
    complain("folder", "a folder");
    complain("/proc/file", "cannot write in /proc");
    if (std::string(option) == "--state") complain("/dev/null", "no file that could be replaced");
  }
  for (const std::string& name : names_in(folder_.path()))
    EXPECT_THAT(name, Not(testing::StartsWith(".tmp")));
}

TEST_F(SampleTest, InterruptedPicturesAreGreyWhereNothingIsPainted) {
  train_on_pictures();
  const pid_t child = start("paints -n 900 --streams 1 --state s --save-every 0.01 -o grid.png", "s", 200);
  EXPECT_EQ(stop(child, SIGINT), 130);
  EXPECT_THAT(in_folder("err.txt"), AllOf(HasSubstr("wrote grid.png"), HasSubstr("not painted yet")));
  const Image grid = read_picture(folder_ / "grid.png");
  const int64_t cells = 30;  // in a row
  EXPECT_EQ(grid.shape.width, cells * 9 - 1);
  EXPECT_EQ(grid.pixels[(grid.shape.height - 1) * grid.shape.width], 128);
  EXPECT_EQ(grid.shape.height, cells * 9 - 1);
  // A picture that is finished stays the same to the end.
  ASSERT_EQ(longstride("sample paints -n 1 -o first.png").code, 0);
  const Image first = read_picture(folder_ / "first.png");
  for (int64_t y = 0; y < 8; ++y)
    for (int64_t x = 0; x < 8; ++x) EXPECT_EQ(grid.pixels[y * grid.shape.width + x], first.pixels[y * 8 + x]);
}

TEST_F(SampleTest, PicturesRefuseWhatTheyCannotDo) {
  train_on_pictures();
  write("notes.txt", "these are notes");
  write_png(folder_ / "large.png", std::vector<uint8_t>(81), 9, 9, 1);
  expect_complaint(longstride("sample paints --prime notes.txt"), 1,
                   {"--prime", "pictures", "notes.txt is neither a PNG nor a JPEG"});
  expect_complaint(longstride("sample paints --prime large.png"), 1,
                   {"--prime", "large.png", "9 x 9", "8 x 8"});
  expect_complaint(longstride("sample paints --prime none.png"), 1, {"--prime", "none.png"});
  expect_complaint(longstride("sample paints --length 128"), 2, {"--length 128", "64"});
  expect_complaint(longstride("sample paints --hop 0.5"), 2, {"--hop"});
  expect_complaint(longstride("sample paints -o grid.txt"), 2, {"grid.txt", ".png"});
  EXPECT_FALSE(fs::exists(folder_ / "sample.png"));
  EXPECT_EQ(longstride("sample paints --prime pictures/3.png").code, 0);
}

TEST_F(SampleTest, BytesInJsonAreUnambiguous) {
  train();
  write("prime.txt", "a\\x15\x15\xff\n");
  const auto result =
      nlohmann::json::parse(longstride("sample run --length 12 --prime prime.txt --json").out);
  EXPECT_THAT(result["samples"][0].get<std::string>(), testing::StartsWith("a\\\\x15\\x15\\xff\n"));
}

TEST_F(SampleTest, SoundGoesOnBeyondTheContext) {
  train_on_sound();
  ASSERT_EQ(longstride("sample plays --length 300 -o long.wav").code, 0);
  EXPECT_EQ(read_audio(folder_ / "long.wav", 12000).size(), 300u);
  write("notes.txt", "these are notes");
  write_png(folder_ / "small.png", std::vector<uint8_t>(64), 8, 8, 1);
  for (const char* file : {"notes.txt", "small.png"}) {
    const Outcome outcome = longstride(std::string("sample plays --prime ") + file);
    expect_complaint(outcome, 1, {"--prime", "sound", file});
    EXPECT_THAT(outcome.err, Not(HasSubstr("data.kind")));
  }
  // A sample goes on from the end of a long prime.
  const std::vector<uint8_t> sound = read_audio(folder_ / "sound.wav", 12000);
  const Outcome outcome = longstride("sample plays --prime sound.wav --length 200 -o on.wav");
  EXPECT_THAT(outcome.err,
              HasSubstr("the prime has 4000 bytes, the model's context 64: going on from its last 32"));
  const std::vector<uint8_t> on = read_audio(folder_ / "on.wav", 12000);
  ASSERT_EQ(on.size(), 200u);
  EXPECT_TRUE(std::equal(sound.end() - 32, sound.end(), on.begin()));
  // After an interruption the unfinished samples are written too.
  const pid_t child = start("plays -n 2 --streams 1 --length 400000 --state s --save-every 0.01", "s", 3000);
  EXPECT_EQ(stop(child, SIGINT), 130);
  EXPECT_GT(read_audio(folder_ / "sample-1.wav", 12000).size(), 1000u);
  EXPECT_FALSE(fs::exists(folder_ / "sample-2.wav"));  // not begun
}

TEST_F(SampleTest, PrimesThatAreTooLongAreCutToTheirEnd) {
  train();
  std::string prime;
  for (int i = 0; prime.size() < 100; ++i) prime += std::to_string(i) + " ";
  write("prime.txt", prime);
  const auto sample = [&](const std::string& options) {
    const Outcome outcome = longstride("sample run --prime prime.txt " + options);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  };
  const auto end = [&](size_t count) { return prime.substr(prime.size() - count); };
  Outcome outcome = sample("");
  EXPECT_THAT(outcome.err, HasSubstr("a sample 64: going on from its last 32"));
  EXPECT_THAT(outcome.out, testing::StartsWith(end(32)));
  EXPECT_EQ(outcome.out.size(), 64u);
  outcome = sample("--length 500");
  EXPECT_THAT(outcome.err, HasSubstr("the model's context 64: going on from its last 32"));
  EXPECT_THAT(outcome.out, testing::StartsWith(end(32)));
  EXPECT_EQ(outcome.out.size(), 500u);
  EXPECT_THAT(sample("--length 500 --hop 0.25").out, testing::StartsWith(end(48)));
  EXPECT_THAT(sample("--length 500 --hop 1").err, HasSubstr("going on from its last 1"));
  EXPECT_THAT(sample("--length 20").out, testing::StartsWith(end(10)));
  outcome = sample("--length 500 --prime-fraction 0.5");
  EXPECT_THAT(outcome.err, Not(HasSubstr("going on")));
  EXPECT_THAT(outcome.out, testing::StartsWith(prime.substr(0, 50)));
}

}  // namespace
}  // namespace longstride
