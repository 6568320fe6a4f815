#include "longstride/run/run_data.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/checkpoint/json_fields.h"
#include "longstride/data/files.h"

namespace longstride {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::array<const char*, 3> kParts{"train", "validation", "test"};
constexpr int64_t kMostRecord = 1 << 20;  // bytes of data.json that are read

// Up to this size all bytes are read; of more, this many blocks at equal distances.
constexpr int64_t kWhole = int64_t{1} << 30, kBlock = int64_t{1} << 18, kBlocks = 1024;

struct PartRecord {
  std::string source;        // path
  int64_t source_bytes = 0;  // of the whole source, decoded
  int64_t bytes = 0;         // of the part
  std::string checksum;
};

std::string record_path(const std::string& run) { return (fs::path(run) / "data.json").string(); }

std::string checksum_of(const Segment& segment) {
  const int64_t size = segment.size();
  Checksum checksum;
  std::vector<uint8_t> block;
  const auto add = [&](int64_t from, int64_t count) {
    block.resize(static_cast<size_t>(count));
    segment.read(from, block);
    checksum.update(block.data(), count);
  };
  if (size <= kWhole) {
    for (int64_t from = 0; from < size; from += kBlock) add(from, std::min(kBlock, size - from));
    return "xxh3-128 " + checksum.hex();
  }
  for (int64_t i = 0; i < kBlocks; ++i) add((size - kBlock) / (kBlocks - 1) * i, kBlock);
  add(size - kBlock, kBlock);
  return "xxh3-128 of blocks " + checksum.hex();
}

const Segment& part_of(const Splits& splits, size_t part) {
  return part == 0 ? splits.train : part == 1 ? splits.validation : splits.test;
}

const std::string& source_of(const DataConfig& config, size_t part) {
  if (part == 1 && !config.validation_path.empty()) return config.validation_path;
  if (part == 2 && !config.test_path.empty()) return config.test_path;
  return config.path;
}

PartRecord record_of(const DataConfig& config, const Splits& splits, size_t part) {
  const Segment& segment = part_of(splits, part);
  PartRecord record;
  record.source = source_of(config, part);
  record.source_bytes = segment.corpus ? segment.corpus->size() : 0;
  record.bytes = segment.size();
  if (record.bytes > 0) record.checksum = checksum_of(segment);
  return record;
}

std::optional<std::array<PartRecord, 3>> read_record(const std::string& run) {
  const std::string path = record_path(run);
  check_file_or_absent(path);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return {};
  const std::vector<uint8_t> text = data::read_whole_file(path, kMostRecord);
  const auto whole = [](const json& number) {
    if (!number.is_number_unsigned()) throw json::other_error::create(501, "not a size", nullptr);
    return number.get<int64_t>();
  };
  try {
    const json parts = parse_json({reinterpret_cast<const char*>(text.data()), text.size()}).at("parts");
    std::array<PartRecord, 3> records;
    for (size_t part = 0; part < 3; ++part) {
      const json& entry = parts.at(kParts[part]);
      records[part] = {entry.at("source").get<std::string>(), whole(entry.at("source_bytes")),
                       whole(entry.at("bytes")), entry.at("checksum").get<std::string>()};
    }
    return records;
  } catch (const json::exception&) {
    fail("{} is damaged; with --data-changed the run takes its data as they are now", path);
  }
}

// The difference, for the beginning of a message; "" if there is none.
std::string difference(const PartRecord& was, const PartRecord& is, const char* part) {
  if (was.bytes == is.bytes && was.checksum == is.checksum) return "";
  if (was.source_bytes != is.source_bytes)
    return fmt::format("{} has {} from {} to {} bytes, which changes the {} part", is.source,
                       is.source_bytes > was.source_bytes ? "grown" : "shrunk", was.source_bytes,
                       is.source_bytes, part);
  if (was.bytes != is.bytes)
    return fmt::format("the {} part of {} has {} bytes, not {}", part, is.source, is.bytes, was.bytes);
  return fmt::format("the {} part of {} has another content of the same {} bytes", part, is.source, is.bytes);
}

bool check_parts(const std::string& run, const DataConfig& config, const Splits& splits,
                 const std::vector<size_t>& wanted) {
  const auto recorded = read_record(run);
  if (!recorded) return false;
  for (const size_t part : wanted) {
    const PartRecord is = record_of(config, splits, part);
    const std::string what = difference((*recorded)[part], is, kParts[part]);
    if (what.empty()) continue;
    fail(
        "{}: the data are not those of the run any more: {}; bring back the data as they were, or take them "
        "as they "
        "are now with --data-changed",
        run, what);
  }
  return true;
}

}  // namespace

void check_run_record(const std::string& run) { static_cast<void>(read_record(run)); }

void make_paths_absolute(DataConfig& config) {
  for (std::string* path : {&config.path, &config.validation_path, &config.test_path, &config.cache}) {
    if (path->empty() || fs::path(*path).is_absolute()) continue;
    std::error_code error;
    const fs::path absolute = fs::absolute(*path, error);
    if (error) continue;
    // A name behind a link means another file once ".." is taken out of it.
    std::string text =
        (absolute.string().find("..") == std::string::npos ? absolute.lexically_normal() : absolute).string();
    while (text.size() > 1 && text.back() == '/') text.pop_back();
    try {
      static_cast<void>(json(text).dump());
    } catch (const json::exception&) {
      continue;
    }
    *path = text;
  }
}

std::string note_relative_paths(const DataConfig& config, const std::string& run) {
  for (const std::string* path : {&config.path, &config.validation_path, &config.test_path}) {
    std::error_code ignored;
    if (path->empty() || fs::path(*path).is_absolute()) continue;
    return fmt::format("note       {} has the relative data path {}, taken here from {}", run, *path,
                       fs::current_path(ignored).string());
  }
  return "";
}

Splits open_run_data(const DataConfig& config, const std::string& run) {
  const std::array<std::pair<const char*, const std::string*>, 3> paths{
      {{"data.path", &config.path},
       {"data.validation_path", &config.validation_path},
       {"data.test_path", &config.test_path}}};
  for (const auto& [field, path] : paths) {
    std::error_code ignored;
    if (path->empty() || fs::exists(*path, ignored)) continue;
    const std::string where = fs::path(*path).is_absolute()
                                  ? ""
                                  : fmt::format(", looked for in {}", fs::current_path(ignored).string());
    if (run.empty()) fail("{} = {}: no such file or folder{}", field, *path, where);
    fail("{} = {} of the run {}: no such file or folder{}; if it lies elsewhere now, say --set {}=PLACE",
         field, *path, run, where, field);
  }
  return open_splits(config);
}

void take_pictures(RunConfig& config, const Corpus& corpus, bool axes) {
  LONGSTRIDE_CHECK(corpus.record_bytes() == 0 || corpus.record_bytes() == config.model.context,
                   "model.context = {}, but a picture of {} has {} bytes; set model.context to that",
                   config.model.context, config.data.path, corpus.record_bytes());
  const ImageShape& shape = corpus.shape();
  config.data.image_height = shape.height, config.data.image_width = shape.width;
  config.data.image_channels = shape.channels;
  if (!axes || shape.bytes() == 0 || !config.model.position_axes.empty()) return;
  // The paper's embedding of pictures.
  config.model.position_axes = {shape.height, shape.width};
  if (shape.channels > 1) config.model.position_axes.push_back(shape.channels);
  config.model.check();
}

ImageShape picture_shape(const RunConfig& config) {
  ImageShape shape{config.data.image_height, config.data.image_width, config.data.image_channels};
  if (shape.height == 0 || shape.width == 0 || shape.channels == 0) {
    const std::vector<int64_t>& axes = config.model.position_axes;
    std::string reason;
    try {
      shape = open_splits(config.data).train.corpus->shape();
    } catch (const Error& error) {
      reason = error.what();
      if (axes.size() == 3) shape = {axes[0], axes[1], axes[2]};
    }
    LONGSTRIDE_CHECK(shape.bytes() > 0,
                     "the shape of a picture is not known: {}; give --set data.image_height=... and "
                     "image_width, image_channels",
                     reason);
  }
  constexpr int64_t kLongestSide = int64_t{1} << 20, kMostChannels = 4;
  const auto lies = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
  LONGSTRIDE_CHECK(lies(shape.height, kLongestSide) && lies(shape.width, kLongestSide) &&
                       lies(shape.channels, kMostChannels),
                   "a picture of {} x {} x {}: sides have 1 to {} pixels, and there are 1 to {} channels",
                   shape.height, shape.width, shape.channels, kLongestSide, kMostChannels);
  LONGSTRIDE_CHECK(shape.bytes() == config.model.context,
                   "a picture of {} x {} x {} has {} bytes, but the model was made for {}", shape.height,
                   shape.width, shape.channels, shape.bytes(), config.model.context);
  return shape;
}

void record_run_data(const std::string& run, const DataConfig& config, const Splits& splits) {
  json parts = json::object();
  for (size_t part = 0; part < 3; ++part) {
    const PartRecord record = record_of(config, splits, part);
    parts[kParts[part]] = {{"source", record.source},
                           {"source_bytes", record.source_bytes},
                           {"bytes", record.bytes},
                           {"checksum", record.checksum}};
  }
  const std::string text = json{{"parts", parts}}.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  write_file_atomically(record_path(run), [&](ByteSink& sink) { sink.write(text); });
}

bool check_run_data(const std::string& run, const DataConfig& config, const Splits& splits) {
  return check_parts(run, config, splits, {0, 1, 2});
}

bool check_run_data(const std::string& run, const DataConfig& config, const Splits& splits,
                    const std::string& part) {
  const auto found = std::find(kParts.begin(), kParts.end(), part);
  LONGSTRIDE_CHECK(found != kParts.end(), "{}: the parts are train, validation and test", part);
  return check_parts(run, config, splits, {static_cast<size_t>(found - kParts.begin())});
}

std::string data_digest(const Splits& splits) {
  std::string digest;
  for (const Segment* part : {&splits.train, &splits.validation, &splits.test})
    digest += fmt::format("{} {}\n", part->size(), part->size() > 0 ? checksum_of(*part) : "");
  return digest;
}

bool same_validation(const std::string& run, const DataConfig& config, const Splits& splits) {
  try {
    const auto recorded = read_record(run);
    return !recorded || difference((*recorded)[1], record_of(config, splits, 1), "validation").empty();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace longstride
