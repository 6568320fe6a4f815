#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/ranges.h>

#include "longstride/base/check.h"
#include "longstride/data/corpus.h"

namespace longstride {

namespace {

constexpr std::array<const char*, 3> kParts{"train", "validation", "test"};

// The ends of the three parts in units (bytes, or pictures). `separate` parts have a path of their own.
std::array<int64_t, 3> part_ends(const std::vector<double>& split, const std::array<bool, 3>& separate,
                                 int64_t total, const char* unit, const std::string& path) {
  LONGSTRIDE_CHECK(!split.empty() && split.size() <= 3,
                   "data.split has {} numbers, must have one to three: train, validation, test",
                   split.size());
  std::array<double, 3> shares{};
  double sum = 0, largest = 0;
  for (size_t part = 0; part < split.size(); ++part) {
    LONGSTRIDE_CHECK(std::isfinite(split[part]) && split[part] >= 0,
                     "data.split = [{}]: {} must not be negative", fmt::join(split, ", "), kParts[part]);
    shares[part] = split[part];
    largest = std::max(largest, split[part]);
    sum += split[part];
  }
  LONGSTRIDE_CHECK(sum > 0, "data.split = [{}] leaves nothing to read", fmt::join(split, ", "));
  const bool fractions = largest <= 1;
  LONGSTRIDE_CHECK(!fractions || sum <= 1 + 1e-9,
                   "data.split = [{}]: the fractions add up to {}, at most 1 is there",
                   fmt::join(split, ", "), sum);
  for (size_t part = 1; part < 3; ++part) {
    if (!separate[part]) continue;
    if (fractions) shares[0] += shares[part];
    shares[part] = 0;
  }
  std::array<int64_t, 3> ends{};
  double cumulative = 0;
  for (size_t part = 0; part < 3; ++part) {
    cumulative += shares[part];
    if (fractions) {
      // A sum of decimal fractions may miss 1 by a rounding error.
      const double end = std::abs(cumulative - 1) < 1e-9 ? 1.0 : cumulative;
      ends[part] = static_cast<int64_t>(std::floor(end * static_cast<double>(total) + 1e-6));
    } else {
      LONGSTRIDE_CHECK(shares[part] == std::floor(shares[part]),
                       "data.split = [{}]: numbers above 1 count {}s, so all must be whole",
                       fmt::join(split, ", "), unit);
      LONGSTRIDE_CHECK(cumulative <= static_cast<double>(total),
                       "data.split = [{}] asks for {} {}s, but {} has {}; ask for fewer, or give fractions",
                       fmt::join(split, ", "), cumulative, unit, path, total);
      ends[part] = static_cast<int64_t>(cumulative);
    }
    const int64_t begin = part == 0 ? 0 : ends[part - 1];
    LONGSTRIDE_CHECK(shares[part] == 0 || ends[part] > begin,
                     "{} is too short: of its {} {}s none is left for {} (data.split = [{}])", path, total,
                     unit, kParts[part], fmt::join(split, ", "));
  }
  return ends;
}

Splits cut(const std::shared_ptr<const Corpus>& corpus, const std::vector<double>& split,
           const std::array<bool, 3>& separate, const std::string& name) {
  const int64_t unit = std::max<int64_t>(1, corpus->record_bytes());
  const auto ends = part_ends(split, separate, corpus->size() / unit,
                              corpus->record_bytes() > 0 ? "picture" : "byte", name);
  return {{corpus, 0, ends[0] * unit},
          {corpus, ends[0] * unit, ends[1] * unit},
          {corpus, ends[1] * unit, ends[2] * unit}};
}

Segment whole(const DataConfig& config, const std::string& path, const ImageShape& shape,
              const DataObserver& observer) {
  DataConfig expected = config;
  if (shape.bytes() > 0) {
    expected.image_height = shape.height;
    expected.image_width = shape.width;
    expected.image_channels = shape.channels;
  }
  auto corpus = std::make_shared<const Corpus>(open_corpus(expected, path, observer));
  return {corpus, 0, corpus->size()};
}

}  // namespace

Splits open_splits(const DataConfig& config, const DataObserver& observer) {
  auto corpus = std::make_shared<const Corpus>(open_corpus(config, config.path, observer));
  const std::array<bool, 3> separate{false, !config.validation_path.empty(), !config.test_path.empty()};
  Splits splits = cut(corpus, config.split, separate, config.path);
  if (separate[1]) splits.validation = whole(config, config.validation_path, corpus->shape(), observer);
  if (separate[2]) splits.test = whole(config, config.test_path, corpus->shape(), observer);
  return splits;
}

Splits split_corpus(std::shared_ptr<const Corpus> corpus, const std::vector<double>& split) {
  return cut(corpus, split, {}, corpus->description());
}

}  // namespace longstride
