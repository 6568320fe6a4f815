#include "longstride/train/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/small_terminal.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// Characters of UTF-8, each one column wide in all that is drawn here.
int columns_of(const std::string& text) {
  int columns = 0;
  for (const unsigned char c : text) columns += (c & 0xc0) != 0x80;
  return columns;
}

// A terminal, or a log file, with a clock that only the test moves.
struct Screen {
  explicit Screen(bool terminal) {
    options.terminal = terminal;
    options.redraw_seconds = 0.2;
    options.line_seconds = 5;
    options.write = [this](std::string_view text) { writes.emplace_back(text); };
    options.width = [this] { return width; };
    options.now = [this] { return time; };
  }
  std::vector<std::string> writes;
  double time = 100;
  int width = 100;
  ProgressOptions options;
};

TEST(Progress, TheBarShowsEverythingOnAWideTerminal) {
  const ProgressState state{250, 1000, 1.23456, 12345, 3720, 1.5 * 1024 * 1024 * 1024};
  EXPECT_EQ(render_progress_bar(state, 200, false),
            " 25% [##########..............................]  250/1000  1.2346 bits  ETA 1h 02m  12.3k tok/s "
            " 1.5 GiB");
  EXPECT_EQ(render_progress_bar({333, 1000, 1, 1, 1, 1}, 200, true),
            " 33% ▕█████████████▎                          ▏  333/1000  1.0000 bits  ETA 1s  1 tok/s  1 B");
  EXPECT_EQ(render_progress_line(state),
            "step 250/1000 (25.0%)  1.2346 bits  12.3k tokens/s  ETA 1h 02m  1.5 GiB");
}

TEST(Progress, TheBarFitsEveryWidthAndShare) {
  for (const bool unicode : {false, true})
    for (int width = 0; width < 130; ++width)
      for (int64_t step = 0; step <= 1000; step += 37)
        EXPECT_LE(columns_of(render_progress_bar({step, 1000, 1.5, 1e6, 60, 1e9}, width, unicode)), width);
  EXPECT_THAT(render_progress_bar({1000, 1000, 1.5, 1e6, 0, 1e9}, 200, true), Not(HasSubstr(" ▏")));
  EXPECT_EQ(render_progress_bar({500, 1000, 1.5, 1e6, 60, 1e9}, 30, false), " 50%  500/1000  1.5000 bits");
  EXPECT_EQ(render_progress_bar({500, 1000, 1.5, 1e6, 60, 1e9}, 3, false), " 50");
}

TEST(Progress, OddStatesAreDrawn) {
  EXPECT_THAT(render_progress_bar({0, 0, kUnknown, 0, kUnknown, 0}, 120, false),
              AllOf(StartsWith("  0%"), HasSubstr("nan bits"), HasSubstr("ETA ?")));
  EXPECT_THAT(render_progress_bar({7, 5, 1, 1, -1, 1}, 120, true),
              AllOf(StartsWith("100%"), HasSubstr("ETA 0s")));
}

TEST(Progress, ATerminalIsRedrawnAtMostFiveTimesASecond) {
  Screen screen(true);
  ProgressLine progress(screen.options);
  for (int step = 1; step <= 1000; ++step) {
    progress.update(step, 1000, 1, 1, 1);
    screen.time += 0.01;
  }
  EXPECT_GE(screen.writes.size(), 45u);
  EXPECT_LE(screen.writes.size(), 51u);
  for (const std::string& text : screen.writes)
    EXPECT_THAT(text, AllOf(StartsWith("\r"), HasSubstr("\x1b[J"), Not(HasSubstr("\n"))));
  progress.finish();
  EXPECT_THAT(screen.writes[screen.writes.size() - 2], HasSubstr("100%"));  // the last state is shown
  EXPECT_EQ(screen.writes.back(), "\n");
  const size_t count = screen.writes.size();
  progress.finish();
  EXPECT_EQ(screen.writes.size(), count);
}

TEST(Progress, ALogFileGetsAPlainLineNowAndThen) {
  Screen screen(false);
  {
    ProgressLine progress(screen.options);
    for (int step = 1; step <= 200; ++step) {
      progress.update(step, 200, 1, 1, 1);
      screen.time += 0.125;
    }
    progress.note("saved");
  }
  ASSERT_EQ(screen.writes.size(), 7u);  // at 0, 5, 10, 15 and 20 s, the note, the end
  EXPECT_THAT(screen.writes[0], StartsWith("step 1/200 "));
  EXPECT_THAT(screen.writes[1], StartsWith("step 41/200 "));
  EXPECT_EQ(screen.writes[5], "saved\n");
  EXPECT_THAT(screen.writes[6], StartsWith("step 200/200 (100.0%)"));
  for (const std::string& text : screen.writes) EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(Progress, ForProgramsEveryLineIsAnObject) {
  Screen screen(false);
  screen.options.json = true;
  {
    ProgressLine progress(screen.options);
    progress.update(1, 4, 2.5, 100, 7);
    progress.note(ValidationNote{1, 0, 3.5, true, false});
    progress.note("step 2: \"this\"");
  }
  ASSERT_EQ(screen.writes.size(), 3u);
  EXPECT_EQ(screen.writes[0],
            "{\"event\":\"progress\",\"step\":1,\"steps\":4,\"train_bits\":2.5,\"bytes_per_second\":100.0,"
            "\"seconds_left\":null,\"memory\":7.0}\n");
  EXPECT_EQ(screen.writes[1],
            "{\"event\":\"validation\",\"step\":1,\"train_bits\":null,\"validation_bits\":3.5,\"best\":true,"
            "\"last\":false}\n");
  EXPECT_EQ(screen.writes[2], "{\"event\":\"message\",\"text\":\"step 2: \\\"this\\\"\"}\n");
}

TEST(Progress, TheTimeLeftCountsTheStepsOfThisRunOnly) {
  Screen screen(true);
  screen.options.redraw_seconds = 0;
  ProgressLine progress(screen.options);
  progress.update(1000, 1100, 1, 1, 1);  // resumed at step 1000
  EXPECT_THAT(screen.writes.back(), HasSubstr("ETA ?"));
  screen.time += 20;
  progress.update(1010, 1100, 1, 1, 1);  // 2 s a step, 90 steps left
  EXPECT_THAT(screen.writes.back(), HasSubstr("ETA 3m 00s"));
}

TEST(Progress, NotesStandAboveTheBar) {
  Screen screen(true);
  ProgressLine progress(screen.options);
  progress.note("before");
  EXPECT_EQ(screen.writes.back(), "before\n");
  progress.update(1, 10, 1, 1, 1);
  const std::string bar = screen.writes.back();
  progress.note("after");
  ASSERT_EQ(screen.writes.size(), 4u);
  EXPECT_EQ(screen.writes[2], "\r\x1b[Jafter\n");
  EXPECT_EQ(screen.writes[3], bar);
}

TEST(Progress, TheWidthOfTheTerminalIsFollowed) {
  Screen screen(true);
  screen.options.redraw_seconds = 0;
  ProgressLine progress(screen.options);
  for (const int width : {100, 40, 20, 10, 1}) {
    screen.width = width;
    progress.update(5, 10, 1, 1, 1);
    EXPECT_LT(columns_of(screen.writes.back()) - 5, width);  // 5: two returns and erase
  }
}

TEST(Progress, NoPieceOfTheBarStaysWhenTheTerminalChanges) {
  for (const bool wraps_anew : {false, true}) {
    SmallTerminal terminal(100, wraps_anew);
    Screen screen(true);
    screen.options.redraw_seconds = 0;
    screen.options.write = [&](std::string_view text) { terminal.write(text); };
    screen.options.width = [&] { return terminal.width(); };
    ProgressLine progress(screen.options);
    terminal.write("begun\n");
    std::vector<std::string> expected{"begun"};
    int64_t step = 0;
    for (const size_t width : {100, 60, 59, 33, 120, 20, 7, 100, 50, 25}) {
      terminal.resize(width);
      for (int time = 0; time < 2; ++time) progress.update(++step, 100, 1, 1, 1);
      std::vector<std::string> shown = terminal.lines();
      EXPECT_THAT(shown.back(), StartsWith(fmt::format("{:3}%", step))) << width;
      shown.pop_back();
      EXPECT_EQ(shown, expected) << width;
      terminal.resize(std::max<size_t>(7, width / 2));
      progress.note("note");
      expected.push_back("note");
    }
    terminal.resize(12);
    progress.finish();
    terminal.write("next\n");
    expected.insert(expected.end(), {" 20%", "next", ""});
    EXPECT_EQ(terminal.lines(), expected);
  }
}

TEST(Progress, TheLocaleDecidesAboutUnicode) {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"}) unsetenv(variable);
  EXPECT_FALSE(locale_is_utf8());
  setenv("LANG", "de_DE.UTF-8", 1);
  EXPECT_TRUE(locale_is_utf8());
  setenv("LC_CTYPE", "C", 1);
  EXPECT_FALSE(locale_is_utf8());
  setenv("LC_ALL", "C.utf8", 1);
  EXPECT_TRUE(locale_is_utf8());
  setenv("LC_ALL", "", 1);
  EXPECT_FALSE(locale_is_utf8());
}

// The settings that a process finds whose standard error is this descriptor.
std::string settings_with_standard_error(int descriptor, const char* terminal_name) {
  int answer[2];
  EXPECT_EQ(pipe(answer), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(descriptor, STDERR_FILENO);
    setenv("TERM", terminal_name, 1);
    const ProgressOptions options = progress_on_standard_error();
    dprintf(answer[1], "%d %d", options.terminal, options.width());
    _exit(0);
  }
  close(answer[1]);
  char text[64] = {};
  EXPECT_GT(read(answer[0], text, sizeof text - 1), 0);
  close(answer[0]);
  waitpid(child, nullptr, 0);
  return text;
}

TEST(Progress, StandardErrorIsLookedAt) {
  const int file = open("/dev/null", O_WRONLY);
  EXPECT_EQ(settings_with_standard_error(file, "xterm"), "0 80");
  close(file);
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) GTEST_SKIP() << "no pseudo-terminals here";
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  winsize size{};
  size.ws_col = 47;
  ASSERT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
  EXPECT_EQ(settings_with_standard_error(terminal, "xterm"), "1 47");
  EXPECT_EQ(settings_with_standard_error(terminal, "dumb"), "0 47");
  close(terminal);
  close(master);
}

}  // namespace
}  // namespace longstride
