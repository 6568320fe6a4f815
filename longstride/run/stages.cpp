#include "longstride/run/stages.h"

#include <algorithm>
#include <string>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/text.h"

namespace longstride {

namespace {

struct Part {
  std::string value;
  double until = 1;
};

// Reads "VALUE until PROGRESS; VALUE until PROGRESS"; `last`, the model's own value, is for the rest.
std::vector<Part> parts_of(const std::string& text, const char* field, std::string last) {
  std::vector<Part> parts;
  double before = 0;
  for (const std::string& entry : trim(text).empty() ? std::vector<std::string>{} : split(text, ';')) {
    constexpr std::string_view kUntil = " until ";
    const size_t at = entry.rfind(kUntil);
    LONGSTRIDE_CHECK(at != std::string::npos && !trim(entry.substr(0, at)).empty(),
                     "{}: '{}' is not of the form VALUE until PROGRESS, as in \"{} until 0.5\"", field,
                     trim(entry), last);
    Part part{std::string(trim(entry.substr(0, at))),
              parse_number(trim(entry.substr(at + kUntil.size())), field)};
    LONGSTRIDE_CHECK(part.until > 0 && part.until < 1,
                     "{}: '{}' ends at {}, must be above 0 and below 1; the rest of the run has the model's",
                     field, trim(entry), part.until);
    LONGSTRIDE_CHECK(part.until > before, "{}: '{}' does not end after the {} before it; put them in order",
                     field, trim(entry), before);
    before = part.until;
    parts.push_back(std::move(part));
  }
  parts.push_back({std::move(last), 1});
  return parts;
}

const std::string& value_at(const std::vector<Part>& parts, double progress) {
  return std::find_if(parts.begin(), parts.end() - 1, [&](const Part& p) { return progress < p.until; })
      ->value;
}

int64_t context_of(const std::string& text, int64_t full) {
  const char* field = "train.context_schedule";
  const int64_t context = parse_integer(text, field);
  LONGSTRIDE_CHECK(context >= 1 && context <= full,
                   "{}: a context of {}, must lie between 1 and model.context = {}", field, context, full);
  if (full % context == 0) return context;
  int64_t near = context;
  while (full % near != 0) --near;
  fail("{}: a context of {} does not divide model.context = {}; {} does", field, context, full, near);
}

void check_pattern(const ModelConfig& model) {
  try {
    check_heads(model.schedule(), model.heads);
  } catch (const Error& error) {
    fail("train.pattern_schedule: {}", error.what());
  }
}

}  // namespace

std::vector<Stage> stages_of(const RunConfig& config) {
  const TrainConfig& train = config.train;
  const auto contexts =
      parts_of(train.context_schedule, "train.context_schedule", fmt::format("{}", config.model.context));
  const auto patterns =
      parts_of(train.pattern_schedule, "train.pattern_schedule", config.model.pattern.text());
  std::vector<double> begins{0};
  for (const auto* parts : {&contexts, &patterns})
    for (const Part& part : *parts)
      if (part.until < 1) begins.push_back(part.until);
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  std::vector<Stage> stages;
  for (const double from : begins) {
    Stage stage{from, 1, config};
    if (begins.size() > 1) {
      ModelConfig& model = stage.config.model;
      model = config.model.shortened(context_of(value_at(contexts, from), config.model.context));
      model.pattern = value_at(patterns, from);
      check_pattern(model);
      stage.pieces = config.model.context / model.context;
      stage.config.train.batch = train.batch * stage.pieces;
      stage.config.train.micro_batch = train.micro() * stage.pieces;
    }
    stages.push_back(std::move(stage));
  }
  return stages;
}

int64_t stage_at(const std::vector<Stage>& stages, double progress) {
  int64_t stage = 0;
  while (stage + 1 < static_cast<int64_t>(stages.size()) && progress >= stages[stage + 1].from) ++stage;
  return stage;
}

}  // namespace longstride
