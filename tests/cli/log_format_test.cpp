// --log-format json: nothing but JSON, one object a line.
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "longstride/base/text.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Contains;
using testing::HasSubstr;

class LogFormatTest : public CliTest {
 protected:
  // Every line is an object with an event.
  std::vector<json> events_in(const std::string& text) {
    std::vector<json> events;
    EXPECT_TRUE(text.empty() || text.back() == '\n') << text;
    for (const std::string& line : split(text, '\n')) {
      if (line.empty()) continue;
      json event = json::parse(line, nullptr, false);
      EXPECT_TRUE(event.is_object() && event.contains("event")) << line;
      events.push_back(std::move(event));
    }
    return events;
  }
  static std::vector<std::string> names_of(const std::vector<json>& events) {
    std::vector<std::string> names;
    for (const json& event : events) names.push_back(event.value("event", ""));
    return names;
  }
};

TEST_F(LogFormatTest, TrainingTellsItsCourse) {
  write_small_config();
  const Outcome outcome = longstride("train small.toml --log-format json --set train.learning_rate=9");
  const std::vector<json> events = events_in(outcome.err);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events[0]["event"], "start");
  EXPECT_EQ(events[0]["run"], "runs/small");
  EXPECT_EQ(events[0]["layers"], 2);
  EXPECT_GT(events[0]["parameters"], 0);
  fs::remove_all(folder_ / "runs");

  const Outcome good = longstride("train small.toml --log-format=json");
  EXPECT_EQ(good.code, 0) << good.err;
  const std::vector<json> all = events_in(good.err);
  EXPECT_THAT(names_of(all), Contains("progress"));
  int validations = 0;
  for (const json& event : all) {
    if (event["event"] == "progress") {
      EXPECT_EQ(event["steps"], 30);
    }
    if (event["event"] != "validation") continue;
    ++validations;
    EXPECT_EQ(event["step"], 10 * validations);
    EXPECT_GT(event["validation_bits"], 0);
    EXPECT_EQ(event["last"], validations == 3);
  }
  EXPECT_EQ(validations, 3);
  const std::vector<json> result = events_in(good.out);
  ASSERT_EQ(result.size(), 1u);
  EXPECT_EQ(result[0]["event"], "result");
  EXPECT_EQ(result[0]["step"], 30);
  // Without progress nothing is left to say.
  EXPECT_EQ(longstride("train runs/small --quiet --log-format json --set train.steps=31").code, 0);
}

TEST_F(LogFormatTest, EvaluationAndSamplesToo) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --quiet").code, 0);
  for (const char* command :
       {"eval runs/small", "sample runs/small --length 20 -n 2", "eval runs/small --min-context 1,2"}) {
    const Outcome outcome = longstride(std::string(command) + " --log-format json");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    events_in(outcome.err);
    const std::vector<json> result = events_in(outcome.out);
    ASSERT_EQ(result.size(), 1u) << command;
    EXPECT_EQ(result[0]["event"], "result");
  }
  // What was asked for on standard output stays as it is, and the result is beside the messages.
  const Outcome piped = longstride("sample runs/small --length 20 -o - --log-format json");
  EXPECT_EQ(piped.out.size(), 20u);
  EXPECT_THAT(names_of(events_in(piped.err)), Contains("result"));
}

TEST_F(LogFormatTest, ErrorsAreEventsToo) {
  for (const auto& [arguments, code] : {std::pair{"train 'no\"w\\h\tere.toml'", 1},
                                        {"train x.toml --what", 2},
                                        {"eval", 2},
                                        {"eval runs/x", 1}}) {
    const Outcome outcome = longstride(std::string(arguments) + " --log-format json");
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    const std::vector<json> events = events_in(outcome.err);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0]["event"], "error");
    EXPECT_EQ(events[0]["code"], code);
    EXPECT_NE(events[0]["text"], "");
  }
  EXPECT_THAT(longstride("eval runs/x --log-format xml").err, HasSubstr("longstride: "));
}

}  // namespace
}  // namespace longstride
