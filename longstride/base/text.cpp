#include "longstride/base/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
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

// The candidate with the smallest distance below `limit`; "" if there is none.
std::string nearest_spelling(std::string_view word, const std::vector<std::string>& candidates,
                             size_t limit) {
  std::string best;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < limit) best = candidate, limit = distance;
  }
  return best;
}

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// "lr" of learning_rate; "" for a single word.
std::string initials(std::string_view name) {
  std::string letters;
  for (const std::string& word : split(name, '_'))
    if (!word.empty()) letters += word[0];
  return letters.size() > 1 ? letters : "";
}

// The digits of a number without the underscores between them; "" if one stands elsewhere.
std::string without_underscores(std::string_view text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits += text[i];
    } else if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
      return "";
    }
  }
  // from_chars does not take a plus as part of a number.
  return digits.size() > 1 && digits[0] == '+' && is_digit(digits[1]) ? digits.substr(1) : digits;
}

template <class Integer>
Integer parse_whole(std::string_view text, std::string_view what, std::string_view kind) {
  const std::string digits = without_underscores(trim(text));
  Integer value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  LONGSTRIDE_CHECK(error != std::errc::result_out_of_range, "{}: '{}' is too large, {} is the most", what,
                   text, std::numeric_limits<Integer>::max());
  LONGSTRIDE_CHECK(error == std::errc(), "{}: '{}' is not {}", what, text, kind);
  const std::string_view suffix(end, static_cast<size_t>(digits.data() + digits.size() - end));
  constexpr std::array<std::pair<std::string_view, Integer>, 7> factors{{{"", 1},
                                                                         {"k", 1000},
                                                                         {"M", 1000000},
                                                                         {"G", 1000000000},
                                                                         {"Ki", 1 << 10},
                                                                         {"Mi", 1 << 20},
                                                                         {"Gi", 1 << 30}}};
  for (const auto& [name, factor] : factors) {
    if (suffix != name) continue;
    Integer product = 0;
    LONGSTRIDE_CHECK(!__builtin_mul_overflow(value, factor, &product),
                     "{}: '{}' is too large, {} is the most", what, text,
                     std::numeric_limits<Integer>::max());
    return product;
  }
  fail("{}: '{}' is not {}", what, text, kind);
}
}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr size_t kLongestWord = 100, kShortestBeginning = 4;
  if (word.empty() || word.size() > kLongestWord) return "";
  const std::string_view part = last_part(word);
  const std::array<std::function<bool(std::string_view)>, 3> means{
      [&](std::string_view candidate) { return part == candidate && part.size() < word.size(); },
      [&](std::string_view candidate) { return part == initials(candidate); },
      [&](std::string_view candidate) {
        return part.size() >= kShortestBeginning && candidate.starts_with(part);
      }};
  for (const auto& is_meant : means) {
    std::vector<std::string> meant;
    for (const std::string& candidate : candidates)
      if (is_meant(last_part(candidate))) meant.push_back(candidate);
    if (!meant.empty()) return nearest_spelling(word, meant, std::string::npos);
  }
  return nearest_spelling(word, candidates, word.size() / 3 + 2);
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
  return parse_whole<int64_t>(text, what, "an integer");
}

uint64_t parse_unsigned(std::string_view text, std::string_view what) {
  return parse_whole<uint64_t>(text, what, "an integer of 0 or more");
}

double parse_number(std::string_view text, std::string_view what) {
  const std::string digits = without_underscores(trim(text));
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  LONGSTRIDE_CHECK(error == std::errc() && end == digits.data() + digits.size(), "{}: '{}' is not a number",
                   what, text);
  return value;
}

}  // namespace longstride
