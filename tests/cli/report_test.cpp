// `longstride runs` and `longstride report` on runs that were trained here.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "longstride/run/run_lock.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

using ReportTest = CliTest;

TEST_F(ReportTest, ARunIsListedAndReported) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --quiet --run 'runs/a, b'").code, 0);
  const Outcome table = longstride("runs");
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("runs/a, b  finished  100%    30"));
  EXPECT_EQ(table.err, "");
  const auto json = nlohmann::json::parse(longstride("runs runs --json --sort best").out);
  ASSERT_EQ(json.size(), 1u);
  EXPECT_EQ(json[0]["state"], "finished");
  EXPECT_EQ(json[0]["best_step"], 30);
  EXPECT_GT(json[0]["best_bits"].get<double>(), 0);

  const Outcome report = longstride("report 'runs/a, b' --samples 2");
  EXPECT_EQ(report.code, 0) << report.err;
  const std::string page = read_bytes(folder_ / "report.html");
  EXPECT_THAT(page, HasSubstr("<h1>a, b</h1>"));
  EXPECT_THAT(page, HasSubstr("train small.toml --quiet --run &#39;runs/a, b&#39;"));
  EXPECT_THAT(page, HasSubstr("validation/bits"));
  EXPECT_THAT(page, HasSubstr("<figcaption>step 30</figcaption>"));
  EXPECT_TRUE(fs::exists(folder_ / "runs/a, b/samples/step-00000030.txt"));
  EXPECT_THAT(longstride("report 'runs/a, b' 'runs/a, b/' './runs/a, b' runs").out, HasSubstr("1 run in"));
  // A report on standard output is the page alone.
  EXPECT_THAT(longstride("report runs -o -").out, testing::StartsWith("<!doctype html>"));
  // The run is as good as before, samples or not.
  EXPECT_EQ(longstride("train 'runs/a, b' --quiet").code, 0);
}

TEST_F(ReportTest, BrokenRunsAreShownAsSuch) {
  fs::create_directories(folder_ / "runs/broken/checkpoints");
  fs::create_directories(folder_ / "runs/not a run");
  write("runs/broken/config.toml", "[model]\nwidth = 'x'\n");
  write("runs/broken/metrics.jsonl", "{\"step\":3,\"train/bits\":4}\n{\"step\":4,\"tra");
  const Outcome table = longstride("runs");
  EXPECT_EQ(table.code, 0);
  EXPECT_THAT(table.out, HasSubstr("runs/broken  unreadable"));
  EXPECT_THAT(table.err, HasSubstr("config.toml"));
  EXPECT_EQ(longstride("report runs/broken 'runs/not a run'").code, 0);
  EXPECT_THAT(read_bytes(folder_ / "report.html"), HasSubstr("unreadable"));
  expect_complaint(longstride("report nowhere"), 1, {"nowhere: no such run directory"});
  expect_complaint(longstride("runs nowhere"), 1, {"nowhere: no such folder"});
  expect_complaint(longstride("report runs/broken -o no/such/place.html"), 1, {"no/such"});
  expect_complaint(longstride("report"), 2, {"run is required"});
  fs::create_directories(folder_ / "empty");
  expect_complaint(longstride("runs empty"), 1, {"there is no run in it"});
}

TEST_F(ReportTest, EvalWritesTheBitsOfEveryByte) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --quiet --run r").code, 0);
  const Outcome outcome =
      longstride("eval r --file text.txt --max-bytes 200 --min-context 32 --entropy bits.csv --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const double mean = nlohmann::json::parse(outcome.out)["results"][0]["bits_per_byte"];
  std::ifstream table(folder_ / "bits.csv");
  std::string line;
  std::getline(table, line);
  EXPECT_EQ(line, "offset,byte,bits,entropy");
  double sum = 0;
  int rows = 0;
  const std::string text = read_bytes(folder_ / "text.txt");
  for (; std::getline(table, line); ++rows) {
    int offset = 0, byte = 0;
    double bits = 0;
    ASSERT_EQ(std::sscanf(line.c_str(), "%d,%d,%lf", &offset, &byte, &bits), 3);
    EXPECT_EQ(offset, rows);
    EXPECT_EQ(byte, text[static_cast<size_t>(rows)]);
    sum += bits;
  }
  EXPECT_EQ(rows, 200);
  EXPECT_NEAR(sum / rows, mean, 1e-3);
  ASSERT_EQ(longstride("eval r --file text.txt --max-bytes 200 --entropy map.html").code, 0);
  EXPECT_THAT(read_bytes(folder_ / "map.html"), HasSubstr("200 bytes"));
  expect_complaint(longstride("eval r --entropy bits.txt"), 2, {".csv"});
  expect_complaint(longstride("eval r --entropy x.csv --min-context 0,32"), 2, {"one --min-context"});
}

TEST_F(ReportTest, AWatchedReportEndsWithTheRun) {
  write_small_config("minutes = 0.07\n");
  std::thread trainer([&] {
    const std::string command = "cd " + folder_.path() + " && " + LONGSTRIDE_BINARY +
                                " train small.toml --quiet --run r --set train.steps=1000000 2>/dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0);
  });
  while (!fs::exists(folder_ / "r/metrics.jsonl")) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Outcome watched = longstride("report r --watch --every 1");
  trainer.join();
  EXPECT_EQ(watched.code, 0) << watched.err;
  const std::string page = read_bytes(folder_ / "report.html");
  EXPECT_THAT(page, HasSubstr("finished"));
  EXPECT_THAT(page, Not(HasSubstr("id=\"pause\"")));
}

// Waits for something that a watching process does.
template <class Question>
void wait_until(Question question) {
  for (int i = 0; i < 3000 && !question(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(question());
}

TEST_F(ReportTest, AWatchSurvivesWhatHappensToItsRuns) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --quiet --run s/a").code, 0);
  ASSERT_EQ(longstride("train small.toml --quiet --run b").code, 0);
  const auto page_has = [&](const std::string& text) {
    return fs::exists(folder_ / "report.html") &&
           read_bytes(folder_ / "report.html").find(text) != std::string::npos;
  };
  Outcome watched;
  std::thread watcher;
  {
    const RunLock sweep(folder_ / "s");  // as between two runs of a sweep
    watcher = std::thread([&] { watched = longstride("report s b --watch --every 1"); });
    wait_until([&] { return page_has("id=\"pause\""); });
    write("b/metrics.jsonl", "{\"step\":3,\"train/bits\":4}\n{\"step\":4,\"tra");
    wait_until([&] { return page_has("not whole yet"); });
    const std::string config = read_bytes(folder_ / "s/a/config.toml");
    write("s/a/config.toml", "[model");
    wait_until([&] { return page_has("unreadable"); });
    write("s/a/config.toml", config);
    fs::rename(folder_ / "b", folder_ / "c");
    wait_until([&] { return page_has("b: no such run directory"); });
    fs::rename(folder_ / "c", folder_ / "s/c");  // a run that begins while it is watched
    wait_until([&] { return page_has("<span class=\"path\">s/c</span>"); });
    EXPECT_TRUE(page_has("id=\"pause\""));
  }
  watcher.join();
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_FALSE(page_has("id=\"pause\""));
}

TEST_F(ReportTest, AWatchEndsBySignalWithAPageThatStays) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --quiet --run r").code, 0);
  const RunLock training(folder_ / "r");
  const std::string command =
      "cd " + folder_.path() + " && { " + LONGSTRIDE_BINARY +
      " report r --watch --every 60 >out.txt 2>err.txt & echo $! >pid; wait $!; echo $? "
      ">code; }";
  std::thread watcher([&] { EXPECT_EQ(std::system(command.c_str()), 0); });
  wait_until([&] { return fs::exists(folder_ / "out.txt") && !read_bytes(folder_ / "out.txt").empty(); });
  EXPECT_EQ(kill(std::stoi(read_bytes(folder_ / "pid")), SIGINT), 0);
  watcher.join();
  EXPECT_EQ(read_bytes(folder_ / "code"), "0\n");
  EXPECT_EQ(read_bytes(folder_ / "err.txt"), "");
  EXPECT_THAT(read_bytes(folder_ / "report.html"), Not(HasSubstr("id=\"pause\"")));
}

}  // namespace
}  // namespace longstride
