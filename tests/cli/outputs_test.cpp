// Outputs and numbers as a user writes them: devices, pipes and links, standard streams that are closed or
// full, modes, and files that change while they are compressed.
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/data/modalities/audio.h"
#include "longstride/data/modalities/image.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
namespace fs = std::filesystem;

class OutputsTest : public CliTest {
 protected:
  void SetUp() override {
    environment_ = "OMP_NUM_THREADS=1";
    write_small_config();
    ASSERT_EQ(longstride("train small.toml --quiet --run run --set train.steps=2").code, 0);
  }
  // Runs a line of the shell in the folder, where $LS is the binary. Returns the rest of standard output.
  std::string shell(const std::string& line) {
    write("line.sh", "LS=" LONGSTRIDE_BINARY "\n" + line + "\n");
    const std::string command = "cd " + folder_.path() + " && bash line.sh >shell.txt 2>shell-err.txt";
    EXPECT_NE(std::system(command.c_str()), -1);
    return in_folder("shell.txt");
  }
  std::string in_folder(const std::string& name) { return read_bytes(folder_ / name); }
  int mode_of(const std::string& name) {
    struct stat status {};
    EXPECT_EQ(stat((folder_ / name).c_str(), &status), 0) << name;
    return static_cast<int>(status.st_mode & 0777);
  }
};

// ---- what a command reads ----

TEST_F(OutputsTest, WhatIsReadIsNotWrittenOver) {
  fs::create_directory(folder_ / "texts");
  write("texts/a.txt", std::string(4000, 'a'));
  const std::string text = in_folder("text.txt"), config = in_folder("run/config.toml");
  for (const char* command : {"data text.txt --preview text.txt", "data text.txt --preview ./text.txt",
                              "eval run --file text.txt --curve text.txt", "eval run --curve text.txt",
                              "sample run --prime text.txt -o text.txt", "init text.txt -o text.txt --force",
                              "compress run text.txt -o text.txt --force"}) {
    SCOPED_TRACE(command);
    expect_complaint(longstride(command), 1, {"text.txt: that is the file to read"});
    EXPECT_EQ(in_folder("text.txt"), text);
  }
  expect_complaint(longstride("data texts --preview texts/a.txt"), 1,
                   {"texts/a.txt: that is a file of the folder to read"});
  for (const char* command :
       {"report run -o", "sample run -o", "eval run --curve", "compress run text.txt --force -o"})
    expect_complaint(longstride(std::string(command) + " run/config.toml"), 1,
                     {"run/config.toml: that is a file of the folder to read"});
  EXPECT_EQ(in_folder("run/config.toml"), config);
  write("o-1.txt", text);
  expect_complaint(longstride("sample run -n 2 --prime o-1.txt -o o.txt"), 1,
                   {"o-1.txt: that is the file to read"});
  // What lies in a run's folder and is no part of the run may be written again.
  for (const char* command :
       {"report run", "report . -o page.html", "report run -o run/page.html", "sample run -o run/sample.txt"})
    for (int time = 0; time < 2; ++time) EXPECT_EQ(longstride(command).code, 0) << command;
}

TEST_F(OutputsTest, TwoResultsNeedTwoFiles) {
  expect_complaint(longstride("eval run --curve c.csv --entropy ./c.csv"), 2,
                   {"that is the file of --curve"});
  expect_complaint(longstride("inspect small.toml --draw a.svg --draw-reach a.svg"), 2,
                   {"that is the file of --draw"});
  EXPECT_FALSE(fs::exists(folder_ / "a.svg"));
}

// ---- devices, pipes and links ----

TEST_F(OutputsTest, LinksStayWhereTheyPoint) {
  fs::create_directory(folder_ / "far");
  const auto expect_followed = [&](const std::string& command, const std::string& name) {
    fs::remove(folder_ / name);
    write("far/" + name, "");
    fs::create_symlink("far/" + name, folder_ / name);
    const Outcome outcome = longstride(command);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(fs::is_symlink(folder_ / name)) << command;
    EXPECT_GT(fs::file_size(folder_ / ("far/" + name)), 0u) << command;
  };
  expect_followed("sample run --length 9 -o text", "text");
  expect_followed("eval run --curve curve.csv", "curve.csv");
  expect_followed("inspect run --draw p.svg", "p.svg");
  expect_followed("inspect run --draw p.png", "p.png");
  expect_followed("compress run text.txt --force -o c.lsc", "c.lsc");
  expect_followed("decompress run c.lsc --force -o again", "again");
  fs::create_symlink("far/state", folder_ / "state");
  EXPECT_EQ(longstride("sample run --length 9 --state state").code, 0);
  EXPECT_EQ(longstride("sample run --length 9 --resume state").code, 0);
  EXPECT_TRUE(fs::is_symlink(folder_ / "state") && fs::is_regular_file(folder_ / "far/state"));
  EXPECT_EQ(in_folder("far/again"), in_folder("text.txt"));
}

TEST_F(OutputsTest, StandardOutputAndPipesAreWrittenTo) {
  const std::string text = in_folder("text.txt");
  for (const char* name : {"-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"}) {
    const std::string o = std::string(" -o ") + name;
    EXPECT_EQ(shell("$LS sample run --length 30" + o + " > x; cat x").size(), 30u) << name;
    EXPECT_EQ(shell("(echo before; $LS sample run --length 30" + o + ") > x; cat x").size(), 37u) << name;
    EXPECT_EQ(shell("$LS sample run --count 2 --length 30" + o + " | cat").size(), 60u) << name;
    EXPECT_EQ(shell("$LS sample run --json --length 30" + o + " | cat").size(), 30u) << name;
    EXPECT_EQ(shell("$LS compress run text.txt" + o + " > c.lsc; $LS decompress run c.lsc" + o + " | cat"),
              text)
        << name;
    EXPECT_THAT(shell(std::string("$LS eval run --curve ") + name + " | cat"),
                StartsWith("position,bits,count"));
  }
  EXPECT_EQ(shell("mkfifo p; cat p > got & $LS compress run text.txt -o p > x; wait; test -p p && cmp got "
                  "c.lsc && echo same"),
            "same\n");
}

// ---- numbers ----

TEST_F(OutputsTest, NumbersAreReadAsInAConfig) {
  const auto bytes = [&](const std::string& length) {
    return longstride("sample run --length " + length).out.size();
  };
  EXPECT_EQ(bytes("0100"), 100u);
  EXPECT_EQ(bytes("1_000"), 1000u);
  EXPECT_EQ(bytes("1Ki"), 1024u);
  EXPECT_EQ(longstride("eval run --step 00000002 --min-context 0_8,010 --batch 02 --max-bytes 1k").code, 0);
  EXPECT_EQ(longstride("sample run --length 9 --set compute.threads=0_1").code, 0);
  std::vector<std::string> drawn;
  for (const char* seed : {"9223372036854775807", "9223372036854775808", "18446744073709551615"})
    drawn.push_back(longstride(std::string("sample run --length 64 --seed ") + seed).out);
  EXPECT_TRUE(drawn[0] != drawn[1] && drawn[1] != drawn[2] && drawn[0] != drawn[2]);

  for (const char* command :
       {"train run --step", "eval run --step", "sample run --step", "compress run text.txt --step",
        "sample run --length", "sample run --count", "sample run -n", "sample run --seed",
        "sample run --top-k", "sample run --streams", "sample run --resume s --branch",
        "eval run --max-bytes", "eval run --batch", "eval run --min-context", "inspect run --pixels"})
    for (const char* wrong : {"99999999999999999999", "0x10", "1e3", "1.5", "x", "''", "-1"}) {
      const Outcome outcome = longstride(std::string(command) + " " + wrong);
      expect_complaint(outcome, 2, {"--"});
      EXPECT_LT(outcome.err.size(), 200u) << outcome.err;
    }
  for (const char* command : {"--temperature", "--top-p", "--hop", "--prime text.txt --prime-fraction",
                              "--prime text.txt --prime-seconds", "--state s --save-every"})
    for (const char* wrong : {"nan", "inf", "-1", "1e999", "x", "0x1"})
      expect_complaint(longstride(std::string("sample run ") + command + " " + wrong), 2, {"--"});
  expect_complaint(longstride("sample run --prime text.txt --prime-fraction 0"), 2,
                   {"--prime-fraction 0", "more than 0"});
  expect_complaint(longstride("version"), 2, {"did you mean '--version'?"});
  expect_complaint(longstride("train small.toml --set train.lr=1"), 2, {"did you mean train.learning_rate?"});
}

TEST_F(OutputsTest, ValuesOfAMegabyteAreNotShownWhole) {
  const std::string config = in_folder("small.toml"), large(900000, 'x');
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    text.replace(text.find(from), from.size(), to);
    write("large.toml", text);
    const Outcome outcome = longstride("inspect large.toml");
    expect_complaint(outcome, 1, {"xxx"});
    EXPECT_LT(outcome.err.size(), 5000u);
  };
  with("fixed:16,4", large);
  with("context", large);
  with("[train]", "[compute]\ndevice = '" + large + "'\n[train]");
}

// ---- streams that are closed or full ----

TEST_F(OutputsTest, AResultThatCannotBeWrittenIsAnError) {
  ASSERT_EQ(longstride("compress run text.txt").code, 0);
  for (const char* command :
       {"--help", "--version", "train --help", "eval run", "eval run --json", "inspect run",
        "inspect run --json", "sample run --length 9", "sample run --length 9 --json",
        "train small.toml --run other --quiet --json", "compress run text.txt --force",
        "decompress run text.txt.lsc --force --json", "selftest --only residual"})
    for (const char* place : {">/dev/full", ">&-"}) {
      fs::remove_all(folder_ / "other");
      EXPECT_EQ(shell(std::string("$LS ") + command + " 2>e " + place + "; echo $? >&2; wc -l < e >&2"), "");
      EXPECT_EQ(in_folder("shell-err.txt").substr(0, 2), "1\n") << command << place << in_folder("e");
      EXPECT_THAT(in_folder("e"), HasSubstr("longstride: cannot write to standard output: ")) << command;
      EXPECT_EQ(fs::exists(folder_ / "other/model.safetensors"),
                std::string(command).starts_with("train small"));
    }
}

TEST_F(OutputsTest, MessagesThatCannotBeWrittenDoNotMatter) {
  int i = 0;
  for (const char* place : {"2>&-", "2>/dev/full", "<&- 2>&-"}) {
    const std::string run = "quiet" + std::to_string(i++);
    EXPECT_EQ(shell("$LS train small.toml --set train.steps=2 --run " + run + " " + place + "; echo $?"),
              "0\n");
    EXPECT_TRUE(fs::exists(folder_ / (run + "/model.safetensors")));
    EXPECT_EQ(shell(std::string("$LS eval nothing ") + place + "; echo $?"), "1\n");
    EXPECT_EQ(shell(std::string("$LS eval --nothing ") + place + "; echo $?"), "2\n");
    EXPECT_EQ(shell(std::string("$LS sample run --length 9 -o o.txt ") + place + "; echo $?"), "0\n");
  }
  // No file of the program takes the place of a closed stream.
  EXPECT_EQ(shell("$LS train small.toml --set train.steps=2 --run closed <&- >&- 2>&-; echo $?"), "0\n");
  EXPECT_EQ(longstride("eval closed").code, 0);
}

TEST_F(OutputsTest, AStateIsSavedBeforeTheOutputIsGivenUp) {
  EXPECT_EQ(shell("$LS sample run --length 30000 --state s --save-every 1000 > /dev/full 2> e; echo $?"),
            "1\n");
  EXPECT_THAT(in_folder("e"), HasSubstr("cannot write to standard output"));
  EXPECT_GT(fs::file_size(folder_ / "s"), 3000u);
  EXPECT_EQ(longstride("sample run --resume s").out.size(), 30000u);
}

TEST_F(OutputsTest, AReaderThatHasSeenEnoughIsNoError) {
  for (const char* command :
       {"sample run --length 1000000", "train --help", "eval run", "eval run --curve -", "report run -o -",
        "compress run text.txt -o -", "compress run text.txt -o /dev/stdout --force",
        "init text.txt --device cpu -o -"}) {
    const std::string codes = shell(std::string("$LS ") + command + " | true; echo ${PIPESTATUS[0]}; $LS " +
                                    command + " | head -c 1 > x; echo ${PIPESTATUS[0]}");
    EXPECT_THAT(codes, testing::MatchesRegex("(141|0)\n(141|0)\n")) << command;
    EXPECT_THAT(in_folder("shell-err.txt"), Not(HasSubstr("cannot"))) << command;
  }
}

// ---- files that change, modes ----

TEST_F(OutputsTest, AFileThatChangesWhileItIsCompressedIsRefused) {
  std::string large;
  for (int i = 0; i < 60000; ++i) large += "line " + std::to_string(i) + "\n";
  for (const char* change :
       {"printf ZZZZ | dd of=large bs=1 conv=notrunc", ": > large", "echo more >> large"}) {
    write("large", large);
    const std::string code = shell(
        "$LS compress run large -o c.lsc & until ls -A | grep -q '^.tmp-c'; do sleep 0.01; done; sleep "
        "0.05; " +
        std::string(change) + " 2>/dev/null; wait $!; echo $?");
    EXPECT_EQ(code, "1\n") << change;
    EXPECT_THAT(in_folder("shell-err.txt"), HasSubstr("longstride: large ")) << change;
    EXPECT_FALSE(fs::exists(folder_ / "c.lsc"));
    for (const std::string& name : names_in(folder_.path())) EXPECT_THAT(name, Not(StartsWith(".tmp")));
  }
}

TEST_F(OutputsTest, ModesAreThoseOfTheInput) {
  for (const int mode : {0600, 0640, 0444}) {
    fs::copy_file(folder_ / "text.txt", folder_ / "secret", fs::copy_options::overwrite_existing);
    chmod((folder_ / "secret").c_str(), static_cast<mode_t>(mode));
    ASSERT_EQ(longstride("compress run secret --force").code, 0);
    ASSERT_EQ(longstride("decompress run secret.lsc --force -o again").code, 0);
    EXPECT_EQ(mode_of("secret.lsc"), mode);
    EXPECT_EQ(mode_of("again"), mode);
    fs::remove(folder_ / "secret");
    // A file that is replaced becomes readable to nobody who could not read it.
    chmod((folder_ / "again").c_str(), 0600);
    ASSERT_EQ(longstride("decompress run secret.lsc --force -o again").code, 0);
    EXPECT_EQ(mode_of("again"), mode & 0600);
    for (const char* name : {"secret.lsc", "again"}) fs::remove(folder_ / name);
  }
  ASSERT_EQ(longstride("sample run --length 9 --state s").code, 0);
  EXPECT_EQ(mode_of("s"), 0600);
  chmod((folder_ / "s").c_str(), 0644);
  ASSERT_EQ(longstride("sample run --resume s --branch 1 --length 20 -o kept --state t").code, 0);
  chmod((folder_ / "kept").c_str(), 0620);
  ASSERT_EQ(longstride("sample run --length 9 -o kept").code, 0);
  EXPECT_EQ(mode_of("kept"), 0620);
}

TEST_F(OutputsTest, NamesNeedNotBeUtf8) {
  EXPECT_EQ(
      shell("$LS train small.toml --set train.steps=1 --quiet --json --run $'caf\\xe9' | grep run; echo "
            "${PIPESTATUS[0]}"),
      "  \"run\": \"caf\xEF\xBF\xBD\",\n0\n");
  EXPECT_EQ(
      shell("for c in 'eval --json' 'inspect --json' 'sample --json --length 9'; do $LS ${c%% *} $'caf\\xe9' "
            "${c#* } > x || echo failed; done"),
      "");
  EXPECT_EQ(shell("$LS sample run --length 9 --state s -o $'caf\\xe9.txt' && $LS sample run --resume s && ls "
                  "-b caf*txt"),
            "caf\\351.txt\n");
  EXPECT_EQ(
      shell("$LS compress run $'caf\\xe9.txt' -o $'\\xe9' > x && $LS decompress run $'\\xe9' -o again > x; "
            "cmp again caf*txt && echo same"),
      "same\n");
  EXPECT_EQ(shell("$LS eval $'no\\e[2K\\xe9\\nlongstride: fine' 2>&1; $LS train small.toml --set "
                  "data.path=$'\\xe9' 2>&1"),
            "longstride: no\\x1b[2K\\xe9\\x0alongstride: fine: no such run directory\n"
            "longstride: --set data.path=\\xe9: '\\xe9' is not UTF-8, as a config has to be; rename it, or "
            "go through "
            "a link with another name\n");
}

TEST_F(OutputsTest, NamesInArchivesAreShownOnOneLineAndWithoutControlCharacters) {
  const std::string evil = "$'a\\n\\e[2K\\alongstride: fine.txt'",
                    shown = "a\\x0a\\x1b[2K\\x07longstride: fine.txt";
  ASSERT_EQ(
      shell("yes words | head -n 300 > " + evil + "; tar -cf twice.tar " + evil + "; tar -rf twice.tar " +
            evil + "; ln -s nothing b.png; tar -cf link.tar b.png " + evil + "; mv " + evil + " " + evil +
            ".png; tar -cf picture.tar *.png; mv *fine.txt.png bad.wav; mv bad.wav " + evil +
            ".wav; tar -cf sound.tar *.wav"),
      "");
  const auto expect_printable = [](const Outcome& outcome) {
    for (const std::string& text : {outcome.out, outcome.err}) {
      EXPECT_THAT(text, testing::Not(HasSubstr("\x1b")));
      EXPECT_THAT(text, testing::Not(HasSubstr("\a")));
      EXPECT_THAT(text, testing::Not(HasSubstr("\nlongstride: fine")));
    }
  };
  const std::string train = "train small.toml --set train.steps=2 --set data.split=[0.8,0.2] ";
  for (const std::string quiet : {"--json", "--quiet"}) {
    const Outcome trained = longstride(train + "--set data.path=twice.tar --run twice" + quiet + " " + quiet);
    EXPECT_EQ(trained.code, 0) << trained.err;
    expect_printable(trained);
    if (quiet == "--json") {
      EXPECT_THAT(trained.err, HasSubstr("1 member replaced by later ones of the same name (" + shown));
    }
  }
  for (const std::string flag : {"", "--json"}) {
    const Outcome outcome = longstride("eval twice--json " + flag);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_printable(outcome);
  }
  const Outcome linked = longstride(train + "--set data.path=link.tar --run linked");
  EXPECT_EQ(linked.code, 0) << linked.err;
  EXPECT_THAT(linked.err, HasSubstr("1 link to no member skipped (b.png)"));
  for (const auto& [kind, name] : {std::pair{"image", "picture.tar"}, {"audio", "sound.tar"}}) {
    const Outcome refused =
        longstride(train + "--run none --set data.kind=" + kind + " --set data.path=" + name);
    expect_complaint(refused, 1, {shown});
    expect_printable(refused);
  }
}

TEST_F(OutputsTest, TextThatIsNoTextIsNotedOnStandardError) {
  ASSERT_EQ(shell("printf 'RIFF\\0\\0\\1\\0WAVEfmt ' > a.wav; yes words | head -n 300 >> a.wav; mkdir f; cp "
                  "a.wav f/a.wav; cp "
                  "a.wav f/b.wav"),
            "");
  for (const std::string path : {"a.wav", "f"}) {
    const Outcome trained = longstride(
        "train small.toml --set train.steps=2 --set data.split=[0.8,0.2] --quiet --json --set data.path=" +
        path + " --run noted-" + path);
    EXPECT_EQ(trained.code, 0) << trained.err;
    EXPECT_THAT(trained.err,
                testing::ContainsRegex("^note .*" + path +
                                       " look.* like a WAV sound.*data.kind = \"audio\"[^\n]*\n$"));
    EXPECT_THAT(trained.out, testing::Not(HasSubstr("WAV")));
  }
}

TEST_F(OutputsTest, WhatIsGivenInsteadOfAConfigIsSaid) {
  expect_complaint(longstride("train text.txt"), 1, {"text.txt is no config", "path = \"text.txt\""});
  expect_complaint(longstride("train run/config.toml"), 2, {"longstride train run", "--run"});
  EXPECT_EQ(longstride("train run/config.toml --run other --quiet").code, 0);
  // As README has it: a config of that name beside the data.
  std::filesystem::copy(folder_ / "small.toml", folder_ / "config.toml");
  const Outcome beside = longstride("train config.toml --set train.steps=2 --quiet");
  EXPECT_EQ(beside.code, 0) << beside.err;
  EXPECT_TRUE(std::filesystem::is_directory(folder_ / "runs/config/checkpoints"));
  write("many.toml", "[model]\npattern = '" + std::string(900000, 'x') + "'\n");
  const Outcome outcome = longstride("inspect many.toml");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_LT(outcome.err.size(), 8000u);
  mkfifo((folder_ / "fifo.toml").c_str(), 0600);
  expect_complaint(longstride("inspect fifo.toml"), 1, {"fifo.toml", "not a regular file"});
}

// Opening something that is not a file could wait, or write elsewhere.
TEST_F(OutputsTest, FilesOfARunThatAreNoFilesAreRefusedAtOnce) {
  const auto put = [&](const std::string& name, const std::string& what) {
    const fs::path path = folder_ / ("run/" + name);
    fs::remove(path);
    if (what == "pipe")
      mkfifo(path.c_str(), 0600);
    else
      fs::create_symlink(what, path);
  };
  environment_ = "timeout 20";
  for (const std::string what : {"pipe", "/dev/zero", "nowhere"})
    for (const std::string name : {"metrics.jsonl", "best.json", "data.json", ".lock", "config.toml"}) {
      fs::remove_all(folder_ / "kept");
      fs::copy(folder_ / "run", folder_ / "kept", fs::copy_options::recursive);
      put(name, what);
      const Outcome outcome = longstride("train run --quiet --set train.steps=60");
      SCOPED_TRACE(name + " as " + what + ": " + outcome.err);
      EXPECT_TRUE(outcome.code == 1 || outcome.code == 2);
      EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
      EXPECT_THAT(outcome.err, HasSubstr(name == "config.toml" ? "run" : name));
      EXPECT_FALSE(fs::exists(folder_ / "run/nowhere"));
      fs::remove_all(folder_ / "run");
      fs::rename(folder_ / "kept", folder_ / "run");
    }
}

TEST_F(OutputsTest, TheResultIsThereEvenIfTheCurveIsNot) {
  expect_complaint(longstride("eval run --curve nowhere/c.csv"), 1,
                   {"--curve nowhere/c.csv", "no folder nowhere"});
  const Outcome full = longstride("eval run --curve /dev/full");
  expect_complaint(full, 1, {"/dev/full", "No space left"});
  EXPECT_THAT(full.out, HasSubstr("bits per byte"));
  const std::string long_name(252, 'n');
  EXPECT_EQ(longstride("sample run --length 9 -o " + long_name).code, 0);
  expect_complaint(longstride("sample run --length 9 -n 2000 -o " + long_name), 1, {"File name too long"});
}

}  // namespace
}  // namespace longstride
