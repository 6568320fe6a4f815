// `longstride data`: what the loader makes of some data.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/data/corpus.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/data/mulaw.h"
#include "longstride/data/yardsticks.h"
#include "longstride/pattern/picture.h"
#include "longstride/run/choices.h"
#include "longstride/run/run_data.h"

#include "cli/commands.h"
#include "cli/load_config.h"
#include "cli/output_file.h"
#include "cli/standard_streams.h"

namespace longstride::cli {

namespace {

constexpr int64_t kMostPictures = 64;   // of a preview
constexpr int64_t kPreviewBytes = 400;  // of text
constexpr double kPreviewSeconds = 10;

// The train part's first bytes; whole pictures.
std::vector<uint8_t> beginning(const Segment& segment, int64_t bytes) {
  const int64_t record = std::max<int64_t>(1, segment.corpus->record_bytes());
  const int64_t count = std::min(segment.size(), std::max(record, bytes / record * record));
  return segment.read(0, count);
}

// Lowest and highest sample of each of `columns` stretches, from -1 to 1.
std::vector<std::pair<double, double>> waveform(std::span<const uint8_t> bytes, int64_t columns) {
  std::vector<std::pair<double, double>> ends;
  const auto size = static_cast<int64_t>(bytes.size());
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t begin = c * size / columns, end = std::max(begin + 1, (c + 1) * size / columns);
    std::pair<double, double> column{1, -1};
    for (int64_t i = begin; i < std::min(end, size); ++i) {
      const auto value = static_cast<double>(mulaw_decode(bytes[static_cast<size_t>(i)]));
      column = {std::min(column.first, value), std::max(column.second, value)};
    }
    ends.push_back(column);
  }
  return ends;
}

void draw_waveform(const std::string& path, std::span<const uint8_t> bytes) {
  constexpr int64_t width = 1000, height = 200;
  Picture picture(width, height);
  picture.fill(0, height / 2, width, 1, {200, 205, 212});
  int64_t x = 0;
  for (const auto& [low, high] : waveform(bytes, width)) {
    const int64_t top = std::llround((1 - high) / 2 * (height - 1)),
                  bottom = std::llround((1 - low) / 2 * (height - 1));
    if (bottom >= top) picture.fill(x, top, 1, bottom - top + 1, {10, 91, 181});
    ++x;
  }
  picture.save(path);
}

// A waveform in one line, by the loudest sample of each column.
std::string waveform_line(std::span<const uint8_t> bytes) {
  constexpr std::array steps{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string line;
  for (const auto& [low, high] : waveform(bytes, 72)) {
    const double loudest = std::clamp(std::max(std::abs(low), std::abs(high)), 0.0, 1.0);
    line += steps[static_cast<size_t>(std::lround(std::sqrt(loudest) * 8))];
  }
  return line;
}

// What can be shown of the beginning of the training part.
std::vector<uint8_t> preview_of(const DataConfig& config, const Segment& train) {
  const Modality& modality = modality_of(config);
  if (modality.records) return beginning(train, kMostPictures * train.corpus->record_bytes());
  return beginning(
      train, modality.timed ? static_cast<int64_t>(kPreviewSeconds * static_cast<double>(config.sample_rate))
                            : kPreviewBytes);
}

// Refuses a name that says another format than the file would have.
void check_preview(const std::string& path, const DataConfig& config) {
  if (is_direct_output(path)) return;
  const Modality& modality = modality_of(config);
  const std::string ending = std::filesystem::path(path).extension().string();
  const bool is_picture = ending == ".png" || ending == ".svg";
  const std::string shown = modality.timed     ? "a waveform, .png or .svg"
                            : modality.records ? "a grid, .png"
                                               : "text";
  const bool fits = modality.timed ? is_picture : modality.records ? ending == ".png" : !is_picture;
  if (!fits)
    throw UsageError(
        fmt::format("--preview {}: {} {} shown as {}", path, modality.all, modality.verb, shown));
}

void write_preview(const std::string& path, const DataConfig& config, const Segment& train) {
  const Modality& modality = modality_of(config);
  const std::vector<uint8_t> bytes = preview_of(config, train);
  if (modality.timed) return draw_waveform(path, bytes);
  if (!modality.records) return write_output(path, [&](ByteSink& sink) { sink.write(printable(bytes)); });
  std::vector<std::span<const uint8_t>> pictures;
  const auto record = static_cast<size_t>(train.corpus->record_bytes());
  for (size_t at = 0; at + record <= bytes.size(); at += record)
    pictures.emplace_back(bytes.data() + at, record);
  modality.write(path, pictures, config, train.corpus->shape());
}

// Data that are too small to be split are shown whole.
Splits open_whole_or_split(const DataConfig& config) {
  try {
    return open_run_data(config, "");
  } catch (const Error& error) {
    DataConfig whole = config;
    whole.split = {1, 0, 0};
    Splits splits = open_run_data(whole, "");
    say("note       they cannot be split as they are: {}", error.what());
    return splits;
  }
}

}  // namespace

int run_data(const DataOptions& options) {
  RunConfig config;
  config.data.kind = kOpenKind;
  config.data.path = options.path;
  override_section(config, options.overrides, "data");
  const bool open = config.data.kind == kOpenKind;
  if (!options.preview.empty()) {
    spare_what_is_read(options.preview, "--preview",
                       {config.data.path, config.data.validation_path, config.data.test_path});
    prepare_output(options.preview, "--preview");
  }
  choose_kind(config.data);
  if (!options.preview.empty()) check_preview(options.preview, config.data);
  const Splits splits = open_whole_or_split(config.data);
  const Corpus& corpus = *splits.train.corpus;
  const std::vector<uint8_t> measured = beginning(splits.train, options.measure);
  std::optional<Yardsticks> yardsticks;
  if (!measured.empty()) yardsticks = measure_yardsticks(measured);
  if (!options.preview.empty()) write_preview(options.preview, config.data, splits.train);

  const std::array parts{std::pair{"train", &splits.train}, std::pair{"validation", &splits.validation},
                         std::pair{"test", &splits.test}};
  const int64_t record = corpus.record_bytes();
  if (options.json) {
    nlohmann::json out{{"path", options.path},   {"kind", config.data.kind},
                       {"kind_was_told", !open}, {"description", corpus.description()},
                       {"bytes", corpus.size()}, {"record_bytes", record}};
    for (const auto& [name, segment] : parts) out["parts"][name] = segment->size();
    if (yardsticks) {
      out["measured_bytes"] = measured.size();
      out["entropies"] = yardsticks->entropies;
      out["xz_bits"] = yardsticks->xz_bits;
    }
    return print_json(out), 0;
  }
  print_result("kind       {}{}\n", config.data.kind, open ? ", by what most of it looks like" : "");
  print_result("content    {}\n", corpus.description());
  for (const auto& [name, segment] : parts)
    print_result(
        "{:<10} {} bytes{}\n", name, segment->size(),
        record > 0 ? fmt::format(", {} {}", segment->size() / record, modality_of(config.data).all) : "");
  if (yardsticks) {
    const auto& e = yardsticks->entropies;
    print_result("bits a byte that simple models take for {} of the training part:\n",
                 human_bytes(static_cast<double>(measured.size())));
    print_result("           order 0 {:.3f}, order 1 {:.3f}, order 2 {:.3f}, order 3 {:.3f}; xz -9 {:.3f}\n",
                 e[0], e[1], e[2], e[3], yardsticks->xz_bits);
  }
  if (!options.preview.empty()) {
    print_result("preview    {}\n", options.preview);
  } else if (record > 0) {
    print_result("preview    with --preview FILE.png, a grid of the first pictures\n");
  } else {
    const std::vector<uint8_t> bytes = preview_of(config.data, splits.train);
    print_result("preview    {}\n", modality_of(config.data).timed ? waveform_line(bytes) : "");
    if (!modality_of(config.data).timed) print_result("{}\n", printable(bytes));
  }
  return 0;
}

}  // namespace longstride::cli
