#include "longstride/checkpoint/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "longstride/base/checksum.h"
#include "longstride/base/despite_signals.h"
#include "longstride/checkpoint/json_fields.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

using nlohmann::json;

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kStateFile = "state.safetensors";
constexpr const char* kChecksumFile = "checksums.json";
constexpr const char* kAmendmentFile = "amended.json";
constexpr const char* kAlgorithm = "XXH3-128";

std::string checkpoints_folder(const std::string& run_directory) { return run_directory + "/checkpoints"; }
std::string best_file(const std::string& run_directory) { return run_directory + "/best.json"; }
std::string pins_folder(const std::string& run_directory) { return run_directory + "/pins"; }
std::string folder_name(int64_t step) { return fmt::format("step-{:08}", step); }

constexpr size_t kDigestDigits = 16;
std::string pin_prefix(const std::string& run_directory, int64_t step) {
  return pins_folder(run_directory) + "/" + folder_name(step) + "-";
}

// The step in a folder's name, if it is the name of a checkpoint.
std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return {};
  int64_t step = -1;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  if (step < 0 || folder_name(step) != name) return {};
  return step;
}

// A file that cannot be looked at is not missing: what seems not to be there may be removed or replaced.
bool exists(const std::string& path) {
  std::error_code error;
  const bool there = fs::exists(path, error);
  LONGSTRIDE_CHECK(!error, "cannot look at {}: {}", path, error.message());
  return there;
}

struct FileRecord {
  std::string name;
  int64_t bytes = 0;
  std::string checksum;
};

FileRecord write_tensors(AtomicDirectory& folder, const char* name, const std::vector<NamedTensor>& tensors,
                         const Metadata& metadata) {
  FileRecord record{name, 0, ""};
  folder.write_file(name, [&](ByteSink& sink) {
    ChecksumSink counted(sink);
    write_safetensors(counted, tensors, metadata);
    record.bytes = counted.bytes();
    record.checksum = counted.hex();
  });
  return record;
}

std::string render_checksums(const std::vector<FileRecord>& records) {
  json files = json::object();
  for (const FileRecord& record : records)
    files[record.name] = {{"bytes", record.bytes}, {"checksum", record.checksum}};
  return json{{"algorithm", kAlgorithm}, {"files", files}}.dump(2) + "\n";
}

// Reads checksums.json. It must say exactly what render_checksums writes, so that damage to this file shows
// too.
std::vector<FileRecord> read_checksums(const std::string& path) {
  const MappedFile file(path);
  const std::string text(reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.bytes()));
  std::vector<FileRecord> records;
  try {
    const json parsed = parse_json(text);
    for (const char* name : {kModelFile, kStateFile}) {
      const json& entry = parsed.at("files").at(name);
      records.push_back({name, entry.at("bytes").get<int64_t>(), entry.at("checksum").get<std::string>()});
    }
    LONGSTRIDE_CHECK(render_checksums(records) == text,
                     "{} says more or less than the checksums of two files", path);
  } catch (const json::exception&) {
    fail("{} does not hold the checksums of two files", path);
  }
  return records;
}

MappedFile map_verified(const std::string& folder, const FileRecord& record, Verify verify) {
  MappedFile file(folder + "/" + record.name);
  LONGSTRIDE_CHECK(file.bytes() == record.bytes, "{} has {} bytes, {} were written", file.path(),
                   file.bytes(), record.bytes);
  if (verify == Verify::checksums)
    LONGSTRIDE_CHECK(checksum_of(file.data(), file.bytes()) == record.checksum,
                     "the content of {} has changed since it was written", file.path());
  return file;
}

std::string render_amendment(const Metadata& metadata) {
  const json entries = metadata;
  const std::string text = entries.dump();
  return json{{"metadata", entries},
              {"checksum", checksum_of(text.data(), static_cast<int64_t>(text.size()))}}
             .dump(2) +
         "\n";
}

Metadata read_amendment(const std::string& folder) {
  const std::string path = folder + "/" + kAmendmentFile;
  if (!exists(path)) return {};
  const MappedFile file(path);
  const std::string text(reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.bytes()));
  try {
    Metadata metadata = parse_json(text).at("metadata").get<Metadata>();
    if (render_amendment(metadata) == text) return metadata;
  } catch (const json::exception&) {
  }
  return {};
}

// What to do about a damaged checkpoint.
std::string advice(const CheckpointInfo& damaged) {
  const std::string run_directory = fs::path(damaged.path).parent_path().parent_path().string();
  std::vector<std::string> older;
  for (const CheckpointInfo& info : list_checkpoints(run_directory))
    if (info.step < damaged.step) older.push_back(folder_name(info.step));
  if (older.empty()) return "the checkpoint is damaged and there is no older one to resume from";
  return fmt::format("the checkpoint is damaged; resume from an older one with --step N: {}",
                     fmt::join(older, ", "));
}

}  // namespace

void prepare_run_directory(const std::string& run_directory) {
  make_directories(checkpoints_folder(run_directory));
  remove_stale_temporaries(run_directory);
  remove_stale_temporaries(checkpoints_folder(run_directory));
  remove_stale_temporaries(pins_folder(run_directory));
  for (const CheckpointInfo& info : list_checkpoints(run_directory)) remove_stale_temporaries(info.path);
}

void check_can_save(const std::string& run_directory) {
  for (const std::string& folder : {run_directory, checkpoints_folder(run_directory)}) {
    std::error_code ignored;
    if (fs::is_directory(folder, ignored)) check_creatable(folder + "/file");
  }
}

std::string save_checkpoint(const std::string& run_directory, int64_t step,
                            const CheckpointContents& contents) {
  LONGSTRIDE_CHECK(step >= 0, "a checkpoint of step {}; steps count from 0", step);
  make_directories(checkpoints_folder(run_directory));
  const std::string path = checkpoints_folder(run_directory) + "/" + folder_name(step);
  Metadata model_metadata = contents.model_metadata;
  model_metadata.insert({"format", "pt"});  // some other programs refuse files without it
  model_metadata.insert({"step", fmt::format("{}", step)});

  AtomicDirectory folder(path);
  const FileRecord model = write_tensors(folder, kModelFile, contents.model, model_metadata);
  const FileRecord state = write_tensors(folder, kStateFile, contents.state, contents.metadata);
  folder.write_file(kChecksumFile, [&](ByteSink& sink) { sink.write(render_checksums({model, state})); });
  folder.commit();
  return path;
}

void amend_checkpoint(const std::string& run_directory, int64_t step, const Metadata& metadata) {
  write_file_atomically(find_checkpoint(run_directory, step).path + "/" + kAmendmentFile,
                        [&](ByteSink& sink) { sink.write(render_amendment(metadata)); });
}

bool amendment_is_damaged(const std::string& checkpoint_folder) {
  return exists(checkpoint_folder + "/" + kAmendmentFile) && read_amendment(checkpoint_folder).empty();
}

std::vector<CheckpointInfo> list_checkpoints(const std::string& run_directory) {
  std::vector<CheckpointInfo> found;
  std::error_code error;
  for (fs::directory_iterator entry = entries_of(checkpoints_folder(run_directory), error), end;
       !error && entry != end; entry.increment(error)) {
    const std::optional<int64_t> step = step_of(entry->path().filename().string());
    const std::string path = entry->path().string();
    if (step && exists(path + "/" + kModelFile) && exists(path + "/" + kStateFile) &&
        exists(path + "/" + kChecksumFile))
      found.push_back({*step, path});
  }
  LONGSTRIDE_CHECK(!error || error == std::errc::no_such_file_or_directory, "cannot list {}: {}",
                   checkpoints_folder(run_directory), error.message());
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

CheckpointInfo find_checkpoint(const std::string& run_directory, int64_t step) {
  std::vector<std::string> known;
  for (const CheckpointInfo& info : list_checkpoints(run_directory)) {
    if (info.step == step) return info;
    known.push_back(fmt::format("{}", info.step));
  }
  if (known.empty()) fail("{} has no checkpoints", run_directory);
  fail("{} has no checkpoint of step {}; there are those of steps {}", run_directory, step,
       fmt::join(known, ", "));
}

OpenCheckpoint::Mappings OpenCheckpoint::verified(const CheckpointInfo& info, Verify verify) {
  try {
    const std::vector<FileRecord> records = read_checksums(info.path + "/" + kChecksumFile);
    return {map_verified(info.path, records.at(0), verify), map_verified(info.path, records.at(1), verify)};
  } catch (const MappingError&) {
    throw;
  } catch (const Error& error) {
    fail("{}: {}", error.what(), advice(info));
  }
}

OpenCheckpoint::OpenCheckpoint(const CheckpointInfo& info, Verify verify)
    : OpenCheckpoint(info, verified(info, verify)) {}

OpenCheckpoint::OpenCheckpoint(const CheckpointInfo& info, Mappings mappings)
    : info_(info),
      model_(std::move(mappings.model)),
      state_(std::move(mappings.state)),
      metadata_(state_.metadata()) {
  const auto step = model_.metadata().find("step");
  if (step != model_.metadata().end() && step->second != fmt::format("{}", info.step))
    throw MisnamedCheckpoint(fmt::format(
        "{} holds the weights of step {}: the folder was copied or renamed; remove it, or give it back "
        "the name of its step",
        info.path, step->second));
  for (const auto& [key, value] : read_amendment(info.path)) metadata_[key] = value;
}

IntactCheckpoint newest_intact(const std::string& run_directory) {
  IntactCheckpoint result;
  std::vector<CheckpointInfo> newest_first = list_checkpoints(run_directory);
  std::reverse(newest_first.begin(), newest_first.end());
  for (const CheckpointInfo& info : newest_first) {
    try {
      result.opened.emplace(info);
      result.found = info;
      break;
    } catch (const MisnamedCheckpoint&) {
      throw;
    } catch (const MappingError& error) {
      // To go on from an older one would remove this one, and perhaps nothing is wrong with it.
      fail("{}; try again, or go on from an older checkpoint with --step N", error.what());
    } catch (const Error& error) {
      result.warnings.push_back(fmt::format("passing over {}: {}", folder_name(info.step), error.what()));
    }
  }
  return result;
}

void mark_best(const std::string& run_directory, int64_t step, double value) {
  LONGSTRIDE_CHECK(std::isfinite(value), "the best evaluation of step {} cannot be {}", step, value);
  make_directories(run_directory);
  write_file_atomically(best_file(run_directory), [&](ByteSink& sink) {
    sink.write(json{{"step", step}, {"value", value}}.dump() + "\n");
  });
}

std::optional<BestCheckpoint> read_best(const std::string& run_directory) {
  const std::string path = best_file(run_directory);
  check_file_or_absent(path);
  if (!exists(path)) return {};
  const MappedFile file(path);
  const char* text = reinterpret_cast<const char*>(file.data());
  try {
    const json parsed = parse_json({text, static_cast<size_t>(file.bytes())});
    // A number beyond int64 is no step.
    if (parsed.at("step").is_number_unsigned() &&
        parsed["step"].get<uint64_t>() <= std::numeric_limits<int64_t>::max())
      return BestCheckpoint{parsed.at("step").get<int64_t>(), parsed.at("value").get<double>()};
  } catch (const json::exception&) {
  }
  fail(
      "{} is damaged: it should read {{\"step\": N, \"value\": X}}; remove it if the best step is not "
      "known",
      path);
}

void forget_best(const std::string& run_directory) {
  LONGSTRIDE_CHECK(std::remove(best_file(run_directory).c_str()) == 0 || errno == ENOENT,
                   "cannot remove {}: {}", best_file(run_directory), last_system_error());
}

void prune_checkpoints(const std::string& run_directory, int64_t keep_last, bool keep_best) {
  LONGSTRIDE_CHECK(keep_last >= 1, "keep_last is {}, must be 1 or more: the newest checkpoint always stays",
                   keep_last);
  const std::optional<BestCheckpoint> best = keep_best ? read_best(run_directory) : std::nullopt;
  const std::vector<CheckpointInfo> all = list_checkpoints(run_directory);
  const int64_t older = static_cast<int64_t>(all.size()) - keep_last;
  for (int64_t i = 0; i < older; ++i)
    if (!best || best->step != all[static_cast<size_t>(i)].step)
      remove_directory_atomically(all[static_cast<size_t>(i)].path);
}

void discard_checkpoints_after(const std::string& run_directory, int64_t step) {
  const std::optional<BestCheckpoint> best = read_best(run_directory);
  if (best && best->step > step) forget_best(run_directory);
  for (const CheckpointInfo& info : list_checkpoints(run_directory))
    if (info.step > step) remove_directory_atomically(info.path);
}

void publish_model(const std::string& run_directory, int64_t step) {
  link_file_atomically(find_checkpoint(run_directory, step).path + "/" + kModelFile,
                       run_directory + "/" + kModelFile);
}

std::optional<int64_t> published_step(const std::string& run_directory) {
  const std::string path = run_directory + "/" + kModelFile;
  if (!exists(path)) return {};
  const SafetensorsFile file(path);
  const auto step = file.metadata().find("step");
  LONGSTRIDE_CHECK(step != file.metadata().end(), "{} does not say of which step it is", path);
  return parse_whole_number(step->second, path + ": step");
}

void pin_model(const std::string& run_directory, int64_t step, const std::string& digest,
               const std::string& file) {
  const std::string pin = pin_prefix(run_directory, step) + digest.substr(0, kDigestDigits) + ".safetensors";
  if (exists(pin)) return;
  make_directories(pins_folder(run_directory));
  link_file_if_absent(file, pin);
}

std::vector<std::string> pinned_models(const std::string& run_directory, int64_t step) {
  std::vector<std::string> found;
  const std::string prefix = pin_prefix(run_directory, step);
  std::error_code ignored;
  for (fs::directory_iterator entry = entries_of(pins_folder(run_directory), ignored), end;
       !ignored && entry != end; entry.increment(ignored)) {
    const std::string path = pins_folder(run_directory) + "/" + entry->path().filename().string();
    if (path.starts_with(prefix)) found.push_back(path);
  }
  std::sort(found.begin(), found.end());
  return found;
}

int64_t parse_whole_number(const std::string& text, const std::string& what) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  LONGSTRIDE_CHECK(error == std::errc() && end == text.data() + text.size() && value >= 0 && text[0] != '-',
                   "{} is \"{}\", must be a whole number", what, text);
  return value;
}

double parse_exact_number(const std::string& text, const std::string& what) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  LONGSTRIDE_CHECK(!text.empty() && end == text.c_str() + text.size() && std::isfinite(value),
                   "{} is \"{}\", must be a finite number", what, text);
  return value;
}

}  // namespace longstride
