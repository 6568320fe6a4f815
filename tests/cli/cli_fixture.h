// Runs the binary, through the shell, in a folder of the test's own.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "tests/support/temporary_folder.h"

namespace longstride {

struct Outcome {
  int code = -1;
  std::string out, err;
};

class CliTest : public testing::Test {
 protected:
  // Runs `longstride arguments` through the shell in the test's folder.
  Outcome longstride(const std::string& arguments, const std::string& input_from = "/dev/null") {
    const std::string command = "cd " + folder_.path() + " && XDG_CACHE_HOME=" + folder_.path() + "/cache " +
                                environment_ + " " + LONGSTRIDE_BINARY + " " + arguments +
                                " >out.txt 2>err.txt <" + input_from;
    const int status = std::system(command.c_str());
    Outcome outcome;
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    outcome.out = read_bytes(folder_ / "out.txt");
    outcome.err = read_bytes(folder_ / "err.txt");
    return outcome;
  }

  // Expects one line, no stack trace, and this exit code.
  void expect_complaint(const Outcome& outcome, int code, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.code, code) << outcome.err;
    // Where the CPU has no AVX2 a note says so before the work begins.
    std::string err = outcome.err;
    if (err.starts_with("note: no AVX2 here")) err.erase(0, err.find('\n') + 1);
    EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), 1) << err;
    EXPECT_THAT(err, testing::StartsWith("longstride: "));
    for (const std::string& part : parts) EXPECT_THAT(err, testing::HasSubstr(part));
  }

  void write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }

  void write_small_config(const std::string& more = "") {
    std::string text;
    for (int i = 0; i < 600; ++i) text += "line " + std::to_string(i * i % 97) + " of the log\n";
    write("text.txt", text);
    write(
        "small.toml",
        "[model]\ncontext = 64\nlayers = 2\nheads = 2\nwidth = 32\npattern = 'fixed:16,4'\n"
        "[data]\npath = 'text.txt'\n"
        "[train]\nsteps = 30\nbatch = 2\nlearning_rate = 3e-3\nvalidate_every = 10\ncheckpoint_every = 10\n" +
            more);
  }

  TemporaryFolder folder_;
  std::string environment_;  // NAME=value
};

}  // namespace longstride
