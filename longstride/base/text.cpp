#include "longstride/base/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include "longstride/base/check.h"

namespace longstride {

namespace {
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}
}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = word.size() / 2 + 2;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

std::string human_bytes(double bytes) {
  constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < units.size()) bytes /= 1024, ++unit;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

std::string human_count(double count) {
  constexpr std::array units{"", "k", "M", "G", "T", "P"};
  size_t unit = 0;
  while (std::abs(count) >= 1000 && unit + 1 < units.size()) count /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f}", count) : fmt::format("{:.1f}{}", count, units[unit]);
}

std::string human_seconds(double seconds) {
  if (!(seconds < 1e9)) return "?";
  const auto total = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (total >= 3600) return fmt::format("{}h {:02}m", total / 3600, total / 60 % 60);
  if (total >= 60) return fmt::format("{}m {:02}s", total / 60, total % 60);
  return fmt::format("{}s", total);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string_view::npos; begin = end + 1)
    parts.emplace_back(text.substr(begin, end - begin));
  parts.emplace_back(text.substr(begin));
  return parts;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

int64_t parse_integer(std::string_view text, std::string_view what) {
  std::string digits(trim(text));
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  LONGSTRIDE_CHECK(error == std::errc() && end != digits.data(), "{}: '{}' is not an integer", what, text);
  const std::string_view suffix(end, static_cast<size_t>(digits.data() + digits.size() - end));
  constexpr std::array<std::pair<std::string_view, int64_t>, 7> factors{{{"", 1},
                                                                         {"k", 1000},
                                                                         {"M", 1000000},
                                                                         {"G", 1000000000},
                                                                         {"Ki", 1 << 10},
                                                                         {"Mi", 1 << 20},
                                                                         {"Gi", 1 << 30}}};
  for (const auto& [name, factor] : factors) {
    if (suffix != name) continue;
    int64_t product = 0;
    LONGSTRIDE_CHECK(!__builtin_mul_overflow(value, factor, &product), "{}: '{}' is too large", what, text);
    return product;
  }
  fail("{}: '{}' is not an integer", what, text);
}

double parse_number(std::string_view text, std::string_view what) {
  std::string digits(trim(text));
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  LONGSTRIDE_CHECK(error == std::errc() && end == digits.data() + digits.size(), "{}: '{}' is not a number",
                   what, text);
  return value;
}

}  // namespace longstride
