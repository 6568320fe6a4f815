#include "longstride/sweep/record.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/checkpoint/json_fields.h"
#include "longstride/run/run_directory.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOther = "go on with what it was begun with, or name another folder by --folder";

std::string shown(const std::vector<Vary>& lists) {
  std::string text;
  for (const Vary& list : lists)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", list.key, fmt::join(list.values, ","));
  return text;
}

nlohmann::ordered_json record_of(RunConfig& config, const std::vector<Vary>& lists) {
  nlohmann::ordered_json record{
      {"format", 1}, {"vary", nlohmann::json::array()}, {"fields", nlohmann::json::object()}};
  for (const Vary& list : lists) record["vary"].push_back({{"field", list.key}, {"values", list.values}});
  const FieldList fields = config.fields();
  for (const Field& field : fields.all()) record["fields"][field.key()] = field.value_as_toml();
  return record;
}

void compare(const std::string& folder, const nlohmann::json& record, RunConfig& config,
             const std::vector<Vary>& lists) {
  std::vector<Vary> before;
  for (const auto& list : record.at("vary"))
    before.push_back(
        {list.at("field").get<std::string>(), list.at("values").get<std::vector<std::string>>()});
  LONGSTRIDE_CHECK(before == lists, "{} is a sweep over {}, not over {}; {}", folder, shown(before),
                   shown(lists), kOther);
  const FieldList fields = config.fields();
  for (const Field& field : fields.all()) {
    bool varies = false;
    for (const Vary& list : lists) varies = varies || list.key == field.key();
    // A field that came with a later version was not there to be named.
    if (varies || !record.at("fields").contains(field.key())) continue;
    const auto was = record.at("fields").at(field.key()).get<std::string>();
    LONGSTRIDE_CHECK(was == field.value_as_toml(), "{} is a sweep with {} = {}, and now it would be {}; {}",
                     folder, field.key(), was, field.value_as_toml(), kOther);
  }
}

// Only what a killed start left, or nothing.
bool holds_nothing(const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name != ".lock" && !name.starts_with(".tmp-sweep.json-")) return false;
  }
  LONGSTRIDE_CHECK(!error, "cannot list {}: {}", folder, error.message());
  return true;
}

}  // namespace

void open_sweep(const std::string& folder, RunConfig config, const std::vector<Vary>& lists) {
  const std::string path = (fs::path(folder) / "sweep.json").string();
  std::error_code ignored;
  LONGSTRIDE_CHECK(!fs::exists(folder, ignored) || fs::is_directory(folder, ignored),
                   "{}: not a folder but a file", folder);
  LONGSTRIDE_CHECK(!is_run_directory(folder), "{} is a run and not a sweep; name another folder by --folder",
                   folder);
  if (fs::exists(path, ignored)) {
    LONGSTRIDE_CHECK(fs::is_regular_file(path, ignored), "cannot read {}: it is not a regular file", path);
    std::ifstream file(path);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    try {
      compare(folder, parse_json(text), config, lists);
    } catch (const nlohmann::json::exception& error) {
      fail("{} is not what a sweep writes: {}", path, reason_of(error));
    }
    return;
  }
  make_directories(folder);
  LONGSTRIDE_CHECK(holds_nothing(folder),
                   "{} holds other files and no sweep; name another folder by --folder", folder);
  write_file_atomically(path, [&](ByteSink& sink) { sink.write(record_of(config, lists).dump(2) + "\n"); });
}

}  // namespace longstride
