#include "cli/prime.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/data/modalities/text.h"
#include "longstride/sample/prime.h"

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

// "validation:3": a part of the run's data, and a picture or window in it.
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
  try {
    return Record{part, parse_integer(prime.substr(colon + 1), "--prime " + part)};
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
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
    // The text after a semicolon there is advice about training data.
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

}  // namespace

std::vector<uint8_t> load_prime(const SampleOptions& options, const SampleJob& job) {
  const Modality& modality = job.modality();
  if (options.prime.empty()) {
    if (options.prime_fraction > 0 || options.prime_seconds > 0)
      throw UsageError("--prime-fraction and --prime-seconds are parts of a --prime, which is missing");
    return {};
  }
  if (options.prime_seconds > 0 && !modality.timed)
    throw UsageError(fmt::format("--prime-seconds is for sound; the run's kind is {}", modality.name));
  std::vector<uint8_t> bytes = read_prime(options, job.config, job.shape);
  LONGSTRIDE_CHECK(!bytes.empty(), "--prime {}: there is nothing in it", options.prime);

  const double seconds = static_cast<double>(bytes.size()) /
                         static_cast<double>(std::max<int64_t>(1, job.config.data.sample_rate));
  if (options.prime_fraction == 0 && options.prime_seconds > seconds)
    say_line(fmt::format("--prime-seconds {:g}: {} has {:.2f} s, all of which are taken",
                         options.prime_seconds, options.prime, seconds));
  const PrimePart part{options.prime_fraction, options.prime_seconds,
                       parse_record(options.prime).has_value()};
  bytes = beginning_of_prime(std::move(bytes), part, job.config.data, job.shape);
  // A picture keeps all rows that were asked for.
  if (modality.records) return bytes;
  return end_of_prime(std::move(bytes), job.session.length, job.windows, say_line);
}

}  // namespace longstride::cli
