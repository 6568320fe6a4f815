#include "cli/prime.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/data/modalities/text.h"

#include "cli/load_run.h"

namespace longstride::cli {

namespace {

std::vector<uint8_t> read_standard_input() {
  std::vector<uint8_t> bytes;
  uint8_t part[65536];
  while (const size_t got = std::fread(part, 1, sizeof part, stdin)) {
    bytes.insert(bytes.end(), part, part + got);
    LONGSTRIDE_CHECK(static_cast<int64_t>(bytes.size()) <= kLargestText,
                     "standard input: more than {} of prime", human_bytes(kLargestText));
  }
  LONGSTRIDE_CHECK(std::ferror(stdin) == 0, "cannot read standard input: {}", last_system_error());
  return bytes;
}

// "validation:3": a part of the run's data, and a picture or window of it.
struct Record {
  std::string part;
  int64_t index = 0;
};

std::optional<Record> parse_record(const std::string& prime) {
  std::error_code ignored;
  const size_t colon = prime.find(':');
  if (colon == std::string::npos || std::filesystem::exists(prime, ignored)) return {};
  const std::string part = prime.substr(0, colon);
  if (part != "train" && part != "validation" && part != "test") return {};
  return Record{part, parse_integer(prime.substr(colon + 1), "--prime " + part)};
}

std::vector<uint8_t> read_record(const Record& record, const SampleOptions& options,
                                 const RunConfig& config) {
  const Splits splits =
      open_splits_of(options.run, config, options.overrides, record.part, options.data_changed);
  const Segment& segment = record.part == "train"  ? splits.train
                           : record.part == "test" ? splits.test
                                                   : splits.validation;
  // Streams are counted in windows of the model's context.
  const int64_t size = config.model.context, count = segment.size() / size;
  LONGSTRIDE_CHECK(record.index >= 0 && record.index < count,
                   "--prime {}:{}: the {} part has {} records of {} bytes", record.part, record.index,
                   record.part, count, size);
  return segment.read(record.index * size, size);
}

std::vector<uint8_t> read_file(const std::string& path, const RunConfig& config, const ImageShape& shape) {
  const Modality& modality = modality_of(config.data);
  try {
    return modality.prime(path, config.data, shape);
  } catch (const Error& error) {
    if (modality.as_is) throw;
    // What follows a semicolon there is advice on data to train with.
    const std::string reason = error.what();
    fail("--prime: the run makes {}: {}", modality.all, reason.substr(0, reason.find(';')));
  }
}

std::vector<uint8_t> read_prime(const SampleOptions& options, const RunConfig& config,
                                const ImageShape& shape) {
  if (const auto record = parse_record(options.prime)) return read_record(*record, options, config);
  if (options.prime != "-") return read_file(options.prime, config, shape);
  if (!modality_of(config.data).as_is)
    throw UsageError(
        fmt::format("--prime -: the run's kind is {}, its prime must be a file", config.data.kind));
  return read_standard_input();
}

// Keeps the end of a prime that is too long.
void fit(std::vector<uint8_t>& bytes, int64_t length, const Windows& windows) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size < length && size <= windows.context) return;
  const bool one_window = length <= windows.context;
  const int64_t kept = one_window ? length / 2 : std::max<int64_t>(1, windows.context - windows.hop);
  say("the prime has {} bytes, {} {}: going on from its last {}", size,
      one_window ? "a sample" : "the model's context", one_window ? length : windows.context, kept);
  bytes.erase(bytes.begin(), bytes.end() - kept);
}

}  // namespace

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

std::vector<uint8_t> load_prime(const SampleOptions& options, const RunConfig& config, int64_t length,
                                const Windows& windows, const ImageShape& shape) {
  const Modality& modality = modality_of(config.data);
  if (options.prime.empty()) {
    if (options.prime_fraction > 0 || options.prime_seconds > 0)
      throw UsageError("--prime-fraction and --prime-seconds are parts of a --prime, which is missing");
    return {};
  }
  if (options.prime_seconds > 0 && !modality.timed)
    throw UsageError(fmt::format("--prime-seconds is for sound; the run's kind is {}", modality.name));
  std::vector<uint8_t> bytes = read_prime(options, config, shape);
  LONGSTRIDE_CHECK(!bytes.empty(), "--prime {}: there is nothing in it", options.prime);

  const bool whole_window = modality.records || parse_record(options.prime);
  const double fraction = options.prime_fraction > 0 ? options.prime_fraction : whole_window ? 0.5 : 1.0;
  if (modality.records) {
    // Whole rows: a picture is completed from its upper part.
    const auto rows = static_cast<int64_t>(std::llround(fraction * static_cast<double>(shape.height)));
    bytes.resize(rows * shape.width * shape.channels);
    return bytes;
  }
  if (fraction < 1)
    bytes.resize(static_cast<size_t>(std::ceil(fraction * static_cast<double>(bytes.size()))));
  if (options.prime_seconds > 0) {
    const double wanted = options.prime_seconds * static_cast<double>(config.data.sample_rate);
    if (wanted < static_cast<double>(bytes.size())) bytes.resize(static_cast<size_t>(std::max(1.0, wanted)));
  }
  fit(bytes, length, windows);
  return bytes;
}

}  // namespace longstride::cli
