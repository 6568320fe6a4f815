#include "longstride/train/metrics.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"
#include "tests/train/event_reader.h"

namespace longstride {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<json> lines_of(const std::string& path) {
  std::vector<json> lines;
  std::istringstream text(read_bytes(path));
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  return lines;
}

std::vector<int64_t> steps_of(const std::string& path) {
  std::vector<int64_t> steps;
  for (const json& line : lines_of(path)) steps.push_back(line.at("step").get<int64_t>());
  return steps;
}

TEST(MetricsLog, EachLineIsThereAtOnceAndExact) {
  const TemporaryFolder folder;
  const auto before = std::chrono::system_clock::now().time_since_epoch();
  MetricsLog log(folder / "run", -1);
  log.log(1, {{"bits", 0.1 + 0.2}, {"speed \"x\"", 1e30}});
  log.log(2, {{"bits", std::numeric_limits<double>::quiet_NaN()},
              {"loss", -std::numeric_limits<double>::infinity()}});
  log.log(3, {});
  const std::vector<json> lines = lines_of(folder / "run/metrics.jsonl");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["bits"].get<double>(), 0.1 + 0.2);
  EXPECT_EQ(lines[0]["speed \"x\""].get<double>(), 1e30);
  EXPECT_NEAR(lines[0]["time"].get<double>(), std::chrono::duration<double>(before).count(), 60);
  EXPECT_TRUE(lines[1]["bits"].is_null());
  EXPECT_TRUE(lines[1]["loss"].is_null());
  EXPECT_EQ(lines[2].size(), 2u);
  const std::vector<ReadEvent> events = read_events(log.event_path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[1].scalars[1].first, "speed \"x\"");
  EXPECT_EQ(events[1].scalars[1].second, 1e30f);
  EXPECT_TRUE(std::isnan(events[2].scalars[0].second));
}

TEST(MetricsLog, ResumingCutsTheLaterStepsOffAndStartsANewEventFile) {
  const TemporaryFolder folder;
  std::string first_events;
  {
    MetricsLog log(folder.path(), -1);
    for (const int64_t step : {10, 20, 20, 30, 40}) log.log(step, {{"bits", static_cast<double>(step)}});
    first_events = log.event_path();
  }
  write_bytes(folder / "metrics.jsonl",
              read_bytes(folder / "metrics.jsonl") + "{\"step\":50,\"ti");  // killed within a line
  const std::string kept_line = read_bytes(folder / "metrics.jsonl").substr(0, 20);
  {
    MetricsLog log(folder.path(), 20);
    EXPECT_THAT(steps_of(log.path()), ElementsAre(10, 20, 20));
    EXPECT_EQ(read_bytes(log.path()).substr(0, 20), kept_line);
    log.log(21, {{"bits", 1.0}});
    EXPECT_THAT(steps_of(log.path()), ElementsAre(10, 20, 20, 21));
    EXPECT_NE(log.event_path(), first_events);
    const std::vector<ReadEvent> events = read_events(log.event_path());
    ASSERT_EQ(events.size(), 3u);
    EXPECT_TRUE(events[1].starts_session);
    EXPECT_EQ(events[1].step, 21);
  }
  MetricsLog log(folder.path(), -1);
  EXPECT_THAT(steps_of(log.path()), IsEmpty());
}

TEST(MetricsLog, AWholeFileIsNotRewritten) {
  const TemporaryFolder folder;
  const std::string text = "{\"step\": 1,   \"time\": 5}\n{\"step\": 2}\n";
  write_bytes(folder / "metrics.jsonl", text);
  const MetricsLog log(folder.path(), 2);
  EXPECT_EQ(read_bytes(log.path()), text);
}

TEST(MetricsLog, LinesThatAreNoMetricsGo) {
  const TemporaryFolder folder;
  write_bytes(folder / "metrics.jsonl",
              "{\"step\":1}\n\n[1]\n{\"step\":\"1\"}\n{\"step\":1.5}\nxx\n{\"step\":2}\n{\"step\":3}");
  const MetricsLog log(folder.path(), 9);
  EXPECT_EQ(read_bytes(log.path()), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(MetricsLog, BadNamesAndPlacesAreRefused) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path(), -1);
  EXPECT_THAT(message_of<Error>([&] { log.log(1, {{"step", 1}}); }), HasSubstr("'step'"));
  EXPECT_THAT(message_of<Error>([&] { log.log(1, {{"time", 1}}); }), HasSubstr("'time'"));
  EXPECT_THAT(message_of<Error>([&] { log.log(1, {{"a", 1}, {"a", 2}}); }), HasSubstr("'a'"));
  EXPECT_THAT(message_of<Error>([&] { log.log(1, {{"\xff", 1}}); }), HasSubstr("UTF-8"));
  EXPECT_EQ(read_bytes(log.path()), "");
  write_bytes(folder / "file", "");
  EXPECT_THAT(message_of<Error>([&] { MetricsLog other(folder / "file", -1); }), HasSubstr(folder / "file"));
}

}  // namespace
}  // namespace longstride
