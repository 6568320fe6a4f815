#include "longstride/compress/container.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "longstride/base/check.h"
#include "longstride/base/input_file.h"
#include "longstride/base/printable.h"
#include "longstride/checkpoint/json_fields.h"
#include "longstride/data/modalities/modality.h"

namespace longstride {

namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "longstride compressed ";
constexpr int kVersion = 1;  // without a model
constexpr int kVersionWithModel = 2;
constexpr int kVersionPortable = 3;  // in integers, with or without a model
constexpr int64_t kMostPortable = 1'000'000;
constexpr int64_t kChecksumDigits = 32;
constexpr int64_t kMostModelConfig = int64_t{1} << 20;  // bytes
constexpr int64_t kMostStreams = 64;
constexpr int64_t kMostContext = int64_t{1} << 31;
constexpr int64_t kMostBytes = int64_t{1} << 60;
constexpr int64_t kUsualFrame = int64_t{1} << 20;

json to_json(const CompressedHeader& header) {
  json out{{"kind", header.kind},           {"extension", header.extension}, {"bytes", header.bytes},
           {"model", header.model},         {"step", header.step},           {"weights", header.weights},
           {"precision", header.precision}, {"device", header.device},       {"probe", header.probe},
           {"context", header.context},     {"streams", header.streams},     {"frame", header.frame_bytes}};
  // Small files are small for every word that is left out.
  if (header.portable > 0) out["portable"] = header.portable;
  if (!header.settings.empty()) out["settings"] = header.settings;
  if (!header.shape.empty()) out["shape"] = header.shape;
  if (!header.before.empty()) out["before"] = header.before.size();
  if (!header.after.empty()) out["after"] = header.after.size();
  if (!header.model_config.empty()) {
    out["model_config"] = header.model_config.size();
    out["model_weights"] = header.model_weights.size();
  }
  return out;
}

CompressedHeader header_from(const json& from) {
  CompressedHeader header;
  from.at("kind").get_to(header.kind);
  from.at("extension").get_to(header.extension);
  header.bytes = whole_number_at(from, "bytes");
  from.at("model").get_to(header.model);
  header.step = whole_number_at(from, "step");
  from.at("weights").get_to(header.weights);
  from.at("precision").get_to(header.precision);
  from.at("device").get_to(header.device);
  from.at("probe").get_to(header.probe);
  header.context = whole_number_at(from, "context");
  header.streams = whole_number_at(from, "streams");
  header.frame_bytes = whole_number_at(from, "frame");
  if (from.contains("settings")) from.at("settings").get_to(header.settings);
  if (from.contains("shape"))
    for (size_t axis = 0; axis < from["shape"].size(); ++axis)
      header.shape.push_back(whole_number(from["shape"].at(axis), "shape"));
  return header;
}

void check(const CompressedHeader& header) {
  const auto is = [](const std::string& value, std::initializer_list<const char*> names) {
    return std::find(names.begin(), names.end(), value) != names.end();
  };
  const Modality* modality = find_modality(header.kind);
  LONGSTRIDE_CHECK(modality != nullptr, "its kind is {}", header.kind);
  LONGSTRIDE_CHECK(is(header.weights, {"auto", "int8"}), "its weights are {}", header.weights);
  LONGSTRIDE_CHECK(is_plain_extension(header.extension), "its extension is {}", header.extension);
  LONGSTRIDE_CHECK(
      header.bytes >= 0 && header.bytes <= kMostBytes && header.context >= 1 && header.frame_bytes >= 1,
      "{} bytes in frames of {} and windows of {}", header.bytes, header.frame_bytes, header.context);
  LONGSTRIDE_CHECK(header.streams >= 1 && header.streams <= kMostStreams, "{} windows side by side",
                   header.streams);
  LONGSTRIDE_CHECK(
      header.context <= kMostContext && header.frame_bytes <= kUsualFrame + header.streams * header.context,
      "frames of {} bytes, for {} windows of {} side by side", header.frame_bytes, header.streams,
      header.context);
  if (!modality->records) return;
  const std::vector<int64_t>& shape = header.shape;
  LONGSTRIDE_CHECK(shape.size() == 3 && shape[0] >= 1 && shape[1] >= 1 && shape[2] >= 1 && shape[2] <= 4 &&
                       shape[0] <= header.bytes && shape[1] <= header.bytes / shape[0] &&
                       shape[0] * shape[1] * shape[2] == header.bytes,
                   "the shape of its picture does not fit its {} bytes", header.bytes);
}

// Little-endian on every machine.
void append(std::string& to, uint64_t value) {
  for (int i = 0; i < 8; ++i) to.push_back(static_cast<char>(value >> (8 * i)));
}

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Cuts pieces off the front of what is left of a file.
class Rest {
 public:
  explicit Rest(std::string_view text) : text_(text) {}

  std::string_view take(int64_t bytes) {
    LONGSTRIDE_CHECK(bytes >= 0 && bytes <= std::ssize(text_), "a part of {} bytes is missing, {} are left",
                     bytes, std::ssize(text_));
    const std::string_view piece = text_.substr(0, static_cast<size_t>(bytes));
    text_.remove_prefix(piece.size());
    return piece;
  }
  std::string_view line() {
    const size_t end = text_.find('\n');
    LONGSTRIDE_CHECK(end != std::string_view::npos, "its header has no end");
    const std::string_view piece = take(static_cast<int64_t>(end));
    text_.remove_prefix(1);
    return piece;
  }
  uint64_t number() {
    const std::string_view piece = take(8);
    uint64_t value = 0;
    for (size_t i = piece.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(piece[i]);
    return value;
  }
  bool empty() const { return text_.empty(); }

 private:
  std::string_view text_;
};

CompressedHeader read_header(Rest& rest, int version) {
  const json parsed = parse_json(rest.line());
  CompressedHeader header = header_from(parsed);
  if (version == kVersionPortable) {
    header.portable = whole_number_at(parsed, "portable");
    LONGSTRIDE_CHECK(header.portable >= 1 && header.portable <= kMostPortable, "its arithmetic is {}",
                     header.portable);
  }
  const bool with_model =
      version == kVersionWithModel || (version == kVersionPortable && parsed.contains("model_config"));
  check(header);
  header.before = rest.take(parsed.contains("before") ? whole_number_at(parsed, "before") : 0);
  header.after = rest.take(parsed.contains("after") ? whole_number_at(parsed, "after") : 0);
  if (with_model) {
    const int64_t bytes = whole_number_at(parsed, "model_config");
    LONGSTRIDE_CHECK(bytes >= 1 && bytes <= kMostModelConfig, "the config of its model has {} bytes", bytes);
    header.model_config = rest.take(bytes);
    header.model_weights = bytes_of(rest.take(whole_number_at(parsed, "model_weights")));
  }
  return header;
}

std::vector<CompressedFrame> read_frames(Rest& rest, const CompressedHeader& header) {
  std::vector<CompressedFrame> frames;
  int64_t left = header.bytes;
  while (const auto bytes = static_cast<int64_t>(rest.number())) {
    LONGSTRIDE_CHECK(bytes == std::min(left, header.frame_bytes), "frame {} has {} bytes", frames.size(),
                     bytes);
    const auto code_bytes = static_cast<int64_t>(rest.number());
    const uint64_t code_checksum = rest.number(), checksum = rest.number();
    const std::string_view code = rest.take(code_bytes);
    const std::span<const uint8_t> span = bytes_of(code);
    LONGSTRIDE_CHECK(frame_checksum(span) == code_checksum, "frame {} was altered", frames.size());
    frames.push_back({bytes, span, checksum});
    left -= bytes;
  }
  LONGSTRIDE_CHECK(left == 0 && rest.empty(), "its frames and its size do not fit");
  return frames;
}

void check_format(std::span<const uint8_t> content, const std::string& name) {
  const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
  LONGSTRIDE_CHECK(text.starts_with(kFormat), "{} is no file that longstride compressed", name);
}

}  // namespace

bool is_plain_extension(std::string_view extension) {
  constexpr size_t kLongest = 32;
  return extension.size() <= kLongest && (extension.empty() || extension[0] == '.') &&
         extension.find('/') == std::string_view::npos && printable_line(extension) == extension;
}

uint64_t frame_checksum(std::span<const uint8_t> bytes) {
  const std::string digits = checksum_of(bytes.data(), std::ssize(bytes));
  uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + 16, value, 16);
  return value;
}

CompressedWriter::CompressedWriter(ByteSink& file, const CompressedHeader& header)
    : file_(file), sink_(file) {
  check(header);
  // Names of files need not be UTF-8, as JSON must be.
  const int version = header.portable > 0           ? kVersionPortable
                      : header.model_config.empty() ? kVersion
                                                    : kVersionWithModel;
  sink_.write(fmt::format("{}{}\n{}\n", kFormat, version,
                          to_json(header).dump(-1, ' ', false, json::error_handler_t::replace)));
  sink_.write(header.before);
  sink_.write(header.after);
  sink_.write(header.model_config);
  sink_.write(header.model_weights.data(), std::ssize(header.model_weights));
}

void CompressedWriter::add(std::span<const uint8_t> original, std::span<const uint8_t> code) {
  std::string head;
  append(head, original.size());
  append(head, code.size());
  append(head, frame_checksum(code));
  append(head, frame_checksum(original));
  sink_.write(head);
  sink_.write(code.data(), std::ssize(code));
}

int64_t CompressedWriter::finish() {
  std::string mark;
  append(mark, 0);
  sink_.write(mark);
  file_.write(sink_.hex());
  return sink_.bytes() + kChecksumDigits;
}

CompressedFile::CompressedFile(const std::string& path) {
  constexpr int kPermissionBits = 0777;
  const InputFile file(path);
  struct stat status {};
  if (fstat(file.descriptor(), &status) == 0) mode_ = static_cast<int>(status.st_mode) & kPermissionBits;
  content_.resize(std::min(kFormat.size(), static_cast<size_t>(file.bytes())));
  file.read(0, content_);
  // Before all of what may be a large file of another kind is read.
  check_format(content_, path);
  content_.resize(static_cast<size_t>(file.bytes()));
  file.read(0, content_);
  read(path);
}

CompressedFile::CompressedFile(std::vector<uint8_t> content, const std::string& name)
    : content_(std::move(content)) {
  check_format(content_, name);
  read(name);
}

void CompressedFile::read(const std::string& name) {
  std::string_view text(reinterpret_cast<const char*>(content_.data()), content_.size());
  const int64_t covered = std::ssize(content_) - kChecksumDigits;
  LONGSTRIDE_CHECK(
      covered > 0 && checksum_of(text.data(), covered) == text.substr(static_cast<size_t>(covered)),
      "{} is damaged: it was cut off or altered since it was written", name);
  text.remove_suffix(kChecksumDigits);
  Rest rest(text.substr(kFormat.size()));
  const std::string_view written = rest.line();
  int version = kVersion;
  while (version <= kVersionPortable && written != fmt::format("{}", version)) ++version;
  LONGSTRIDE_CHECK(version <= kVersionPortable,
                   "{} is of format {}, this version of longstride reads formats {} to {}", name, written,
                   kVersion, kVersionPortable);
  // The checksum finds damage; what a person wrote can still be wrong.
  try {
    header_ = read_header(rest, version);
    frames_ = read_frames(rest, header_);
  } catch (const json::exception& error) {
    fail("{} is damaged: {}", name, reason_of(error));
  } catch (const Error& error) {
    fail("{} is damaged: {}", name, error.what());
  }
}

}  // namespace longstride
