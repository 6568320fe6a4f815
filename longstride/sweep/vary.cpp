#include "longstride/sweep/vary.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/base/toml.h"

namespace longstride {

namespace {

constexpr size_t kLongestName = 120;

// At commas that stand neither in quotes nor in brackets.
std::vector<std::string> split_values(std::string_view text) {
  std::vector<std::string> values(1);
  char quote = 0;
  int depth = 0;
  for (const char c : text) {
    if (quote != 0)
      quote = c == quote ? 0 : quote;
    else if (c == '"' || c == '\'')
      quote = c;
    else if (c == '[' || c == ']')
      depth += c == '[' ? 1 : -1;
    if (c == ',' && quote == 0 && depth == 0)
      values.emplace_back();
    else
      values.back() += c;
  }
  return values;
}

std::string without_single_quotes(const std::string& value) {
  const bool quoted = value.size() >= 2 && value.front() == '\'' && value.back() == '\'';
  return quoted ? value.substr(1, value.size() - 2) : value;
}

// A value as a part of a folder's name: what a shell would take for something else becomes a hyphen.
std::string part_of_name(const std::string& value) {
  std::string part;
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = std::isalnum(byte) != 0 || byte >= 0x80 ||
                       std::string_view("._+-:").find(c) != std::string_view::npos;
    if (plain)
      part += c;
    else if (!part.empty() && part.back() != '-')
      part += '-';
  }
  while (part.ends_with('-')) part.pop_back();
  return part.empty() ? "none" : part;
}

// The name of a field without its section, unless another list has the same.
std::string short_key(const std::vector<Vary>& lists, size_t which) {
  const auto last_part = [](const std::string& key) { return split(key, '.').back(); };
  const std::string name = last_part(lists[which].key);
  const auto same = std::count_if(lists.begin(), lists.end(),
                                  [&](const Vary& list) { return last_part(list.key) == name; });
  return same > 1 ? lists[which].key : name;
}

std::string unused_name(std::string name, const std::set<std::string>& taken) {
  if (name.size() > kLongestName) {
    name.resize(kLongestName);
    // Not in the middle of a character.
    while (!name.empty() && (static_cast<unsigned char>(name.back()) & 0xC0) == 0x80) name.pop_back();
    if (!name.empty() && static_cast<unsigned char>(name.back()) >= 0xC0) name.pop_back();
  }
  std::string candidate = name;
  for (int number = 2; taken.contains(candidate); ++number) candidate = fmt::format("{}_{}", name, number);
  return candidate;
}

}  // namespace

Vary parse_vary(const std::string& text, RunConfig config) {
  const FieldList fields = config.fields();
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError(
        fmt::format("--vary {}: expected section.key=value,value, as in --vary train.batch=4,8", text));
  Vary vary;
  vary.key = trim(std::string_view(text).substr(0, equals));
  try {
    fields.find(vary.key, "--vary " + text);
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
  if (trim(std::string_view(text).substr(equals + 1)).empty())
    throw UsageError(
        fmt::format("--vary {}: the list of values is empty; an empty text is written \"\"", text));
  for (const std::string& part : split_values(std::string_view(text).substr(equals + 1))) {
    const std::string value = without_single_quotes(std::string(trim(part)));
    if (trim(part).empty())
      throw UsageError(fmt::format(
          "--vary {}: there is a comma with no value beside it; an empty text is written \"\"", text));
    try {
      apply_override(vary.key + "=" + value, fields, "--vary");
      // A pattern is kept as it is written until somebody asks for its meaning.
      if (vary.key == "model.pattern" && !config.model.pattern.text().empty()) config.model.schedule();
    } catch (const Error& error) {
      const bool cut = vary.key == "model.pattern" || vary.key.ends_with("_schedule");
      throw UsageError(
          fmt::format("{}{}", error.what(), cut ? "; a value with commas stands in quotes" : ""));
    }
    std::string as_toml = fields.find(vary.key, "--vary").value_as_toml();
    if (std::find(vary.values.begin(), vary.values.end(), as_toml) != vary.values.end())
      throw UsageError(fmt::format("--vary {}: {} is there twice", text, as_toml));
    vary.values.push_back(std::move(as_toml));
  }
  return vary;
}

std::vector<SweepRun> runs_of_sweep(const std::vector<Vary>& lists) {
  size_t count = 1;
  std::set<std::string> keys;
  for (const Vary& list : lists) {
    if (!keys.insert(list.key).second)
      throw UsageError(fmt::format("--vary {0}: {0} is in two lists; put all its values into one", list.key));
    count *= list.values.size();
    if (count > kMostSweepRuns)
      throw UsageError(fmt::format("--vary: the lists make more than {} runs", kMostSweepRuns));
  }
  std::vector<SweepRun> runs;
  std::set<std::string> taken;
  for (size_t number = 0; number < count; ++number) {
    SweepRun run;
    size_t rest = number, weight = count;
    for (size_t i = 0; i < lists.size(); ++i) {
      weight /= lists[i].values.size();
      const std::string& value = lists[i].values[rest / weight];
      rest %= weight;
      run.settings.push_back(lists[i].key + "=" + value);
      run.name += fmt::format("{}{}={}", i > 0 ? "," : "", short_key(lists, i), part_of_name(value));
    }
    run.name = unused_name(run.name, taken);
    taken.insert(run.name);
    runs.push_back(std::move(run));
  }
  return runs;
}

}  // namespace longstride
