#include "longstride/sample/session.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "longstride/base/checksum.h"
#include "longstride/base/input_file.h"
#include "longstride/base/output_file.h"
#include "longstride/base/printable.h"
#include "longstride/base/rng.h"
#include "longstride/checkpoint/json_fields.h"

namespace longstride {

namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "longstride session ";
constexpr int kVersion = 1;
constexpr int64_t kChecksumDigits = 32;

json to_json(const SamplerConfig& sampler) {
  return {{"temperature", sampler.temperature},
          {"top_k", sampler.top_k},
          {"top_p", sampler.top_p},
          {"seed", sampler.seed}};
}

SamplerConfig sampler_from(const json& from) {
  return {from.at("temperature").get<double>(), whole_number_at(from, "top_k"),
          from.at("top_p").get<double>(), bits_at(from, "seed")};
}

// Names of files need not be UTF-8, but text in JSON must be. Other names are written as a list of bytes.
json name_as_json(const std::string& name) {
  if (is_utf8(name)) return name;
  return std::vector<uint8_t>(name.begin(), name.end());
}

std::string name_from(const json& from) {
  if (from.is_string()) return from.get<std::string>();
  const auto bytes = from.get<std::vector<uint8_t>>();
  return std::string(bytes.begin(), bytes.end());
}

json header_of(const Session& session) {
  json written = json::array();
  for (const WrittenFile& file : session.written)
    written.push_back(
        {{"name", name_as_json(file.name)}, {"inode", file.inode}, {"modified", file.modified}});
  json sequences = json::array();
  for (const Sequence& sequence : session.sequences)
    sequences.push_back({{"known", sequence.known()},
                         {"prime", sequence.prime},
                         {"length", sequence.length},
                         {"stream", sequence.stream},
                         {"sampler", to_json(sequence.sampler)}});
  return {{"model", session.model},
          {"run", session.run},
          {"step", session.step},
          {"weights", session.weights},
          {"precision", session.precision},
          {"exact_scores", session.exact_scores},
          {"device", session.device},
          {"settings", session.settings},
          {"kind", session.kind},
          {"length", session.length},
          {"hop", session.hop},
          {"sampler", to_json(session.sampler)},
          {"output", name_as_json(session.output)},
          {"written", written},
          {"sequences", sequences}};
}

// Everything but the bytes of the sequences, whose numbers are returned in `known`.
Session session_from(const json& header, std::vector<int64_t>& known) {
  Session session;
  header.at("model").get_to(session.model);
  header.at("run").get_to(session.run);
  session.step = whole_number_at(header, "step");
  header.at("weights").get_to(session.weights);
  header.at("precision").get_to(session.precision);
  header.at("exact_scores").get_to(session.exact_scores);
  header.at("device").get_to(session.device);
  header.at("settings").get_to(session.settings);
  header.at("kind").get_to(session.kind);
  session.length = whole_number_at(header, "length");
  header.at("hop").get_to(session.hop);
  session.sampler = sampler_from(header.at("sampler"));
  session.output = name_from(header.at("output"));
  for (const json& entry : header.value("written", json::array()))
    session.written.push_back(
        {name_from(entry.at("name")), bits_at(entry, "inode"), entry.at("modified").get<int64_t>()});
  for (const json& entry : header.at("sequences")) {
    Sequence& sequence = session.sequences.emplace_back();
    known.push_back(whole_number_at(entry, "known"));
    sequence.prime = whole_number_at(entry, "prime");
    sequence.length = whole_number_at(entry, "length");
    const int64_t stream = whole_number_at(entry, "stream");
    LONGSTRIDE_CHECK(stream <= std::numeric_limits<uint32_t>::max(), "stream is {}", stream);
    sequence.stream = static_cast<uint32_t>(stream);
    sequence.sampler = sampler_from(entry.at("sampler"));
  }
  return session;
}

// Cuts the text up to the next newline off `rest`.
std::string_view take_line(std::string_view& rest) {
  const std::string_view line = rest.substr(0, rest.find('\n'));
  rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  return line;
}

// `rest` is what follows the first line, without the checksum.
Session read_content(std::string_view rest) {
  std::vector<int64_t> known;
  Session session = session_from(parse_json(take_line(rest)), known);
  session.sampler.check();
  for (size_t i = 0; i < known.size(); ++i) {
    Sequence& sequence = session.sequences[i];
    LONGSTRIDE_CHECK(known[i] >= 0 && known[i] <= std::ssize(rest), "bytes of sequence {} are missing", i);
    const std::string_view bytes = rest.substr(0, static_cast<size_t>(known[i]));
    sequence.bytes.assign(bytes.begin(), bytes.end());
    rest.remove_prefix(bytes.size());
    sequence.check(static_cast<int64_t>(i));
  }
  LONGSTRIDE_CHECK(!session.sequences.empty() && rest.empty(), "{} bytes too many behind {} sequences",
                   rest.size(), known.size());
  return session;
}

// The file under the name, which may be a link to it; nothing if there is none.
std::optional<WrittenFile> look_at(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0 && lstat(path.c_str(), &status) != 0) return {};
  constexpr int64_t kBillion = 1'000'000'000;
  return WrittenFile{std::filesystem::path(path).filename().string(), status.st_ino,
                     int64_t{status.st_mtim.tv_sec} * kBillion + status.st_mtim.tv_nsec};
}

}  // namespace

void save_session(const std::string& path, const Session& session) {
  // The file holds the prime, which need not be for everyone. A mode that the user changed stays.
  constexpr int kPrivate = 0600;
  std::error_code error;
  const bool begun = std::filesystem::exists(path, error);
  write_output(
      path,
      [&](ByteSink& file) {
        ChecksumSink sink(file);
        // Names of files need not be UTF-8, but JSON must be.
        sink.write(fmt::format("{}{}\n{}\n", kFormat, kVersion,
                               header_of(session).dump(-1, ' ', false, json::error_handler_t::replace)));
        for (const Sequence& sequence : session.sequences)
          sink.write(sequence.bytes.data(), sequence.known());
        file.write(sink.hex());
      },
      {.mode = begun ? -1 : kPrivate});
}

Session load_session(const std::string& path) {
  const InputFile file(path);
  std::string content(static_cast<size_t>(file.bytes()), 0);
  file.read(0, std::span(reinterpret_cast<uint8_t*>(content.data()), content.size()));
  std::string_view text(content);
  LONGSTRIDE_CHECK(text.starts_with(kFormat), "{} is not the state of a sampling run", path);
  const int64_t covered = file.bytes() - kChecksumDigits;
  LONGSTRIDE_CHECK(covered > 0 && checksum_of(text.data(), covered) == text.substr(covered),
                   "{} is damaged: it was cut off or altered since it was written", path);
  text.remove_suffix(kChecksumDigits);
  const std::string_view version = take_line(text).substr(kFormat.size());
  LONGSTRIDE_CHECK(version == fmt::format("{}", kVersion),
                   "{} is a state of format {}, this version of longstride reads format {}", path, version,
                   kVersion);
  // The checksum finds damage. A file that a person wrote can still be wrong.
  try {
    return read_content(text);
  } catch (const json::exception& error) {
    fail("{} is damaged: {}", path, reason_of(error));
  } catch (const Error& error) {
    fail("{} is damaged: {}", path, error.what());
  }
}

void note_written(std::vector<WrittenFile>& written, const std::string& path) {
  const std::optional<WrittenFile> file = look_at(path);
  if (!file) return;
  std::erase_if(written, [&](const WrittenFile& known) { return known.name == file->name; });
  written.push_back(*file);
}

bool is_own(const std::vector<WrittenFile>& written, const std::string& path) {
  const std::optional<WrittenFile> file = look_at(path);
  return !file || std::any_of(written.begin(), written.end(), [&](const WrittenFile& known) {
    return known.name == file->name && known.inode == file->inode && known.modified == file->modified;
  });
}

uint64_t branch_seed(uint64_t seed, uint64_t parent, int64_t index) {
  const auto low = [](uint64_t value) { return static_cast<uint32_t>(value); };
  const auto branch = static_cast<uint64_t>(index);
  const PhiloxBlock block = philox({low(branch), low(branch >> 32), low(parent), low(parent >> 32)}, seed);
  return uint64_t{block[0]} << 32 | block[1];
}

bool is_session_file(const std::string& path) {
  std::string begin(kFormat.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  return file.read(begin.data(), static_cast<std::streamsize>(begin.size())) && begin == kFormat;
}

Session branch(const Session& from, const BranchOptions& options) {
  LONGSTRIDE_CHECK(options.count >= 1, "{} branches, must be at least 1", options.count);
  const auto change = [&](SamplerConfig& sampler) {
    sampler.temperature = options.temperature.value_or(sampler.temperature);
    sampler.top_k = options.top_k.value_or(sampler.top_k);
    sampler.top_p = options.top_p.value_or(sampler.top_p);
  };
  Session session = from;
  session.sequences.clear();
  session.written.clear();
  change(session.sampler);
  session.sampler.seed = options.seed.value_or(from.sampler.seed);
  session.length = options.length.value_or(from.length);
  for (const Sequence& parent : from.sequences) {
    const int64_t length = options.length.value_or(parent.length);
    if (parent.known() >= length) continue;
    for (int64_t b = 0; b < options.count; ++b) {
      Sequence child = parent;
      child.prime = child.known();
      child.length = length;
      change(child.sampler);
      child.sampler.seed = branch_seed(session.sampler.seed, parent.sampler.seed, b);
      session.sequences.push_back(std::move(child));
    }
  }
  LONGSTRIDE_CHECK(
      !session.sequences.empty(),
      "nothing to branch: all {} samples have at least {} bytes already; a larger length lets them go on",
      from.sequences.size(), session.length);
  return session;
}

}  // namespace longstride
