#include "longstride/data/skipped_files.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/printable.h"

namespace longstride::data {

namespace {
constexpr size_t kMostKinds = 6;          // that a remark names
constexpr size_t kMostExtensions = 1000;  // that are counted separately
constexpr size_t kLongestExtension = 12;  // a longer one is probably a part of the name
constexpr const char* kOthers = "of other kinds";
}  // namespace

void SkippedFiles::add(const Item& item) {
  if (count_++ == 0) first_ = item.label();
  const std::string& extension = item.extension();
  const bool is_kind = !extension.empty() && extension.size() <= kLongestExtension;
  std::string kind = is_kind ? fmt::format(".{}", printable_line(extension)) : "without extension";
  if (kinds_.size() >= kMostExtensions && !kinds_.contains(kind)) kind = kOthers;
  ++kinds_[kind];
}

std::string SkippedFiles::remark() const {
  if (count_ == 0) return "";
  std::vector<std::pair<std::string, int64_t>> kinds(kinds_.begin(), kinds_.end());
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  if (kinds.size() > kMostKinds) {
    int64_t rest = 0;
    for (size_t i = kMostKinds - 1; i < kinds.size(); ++i) rest += kinds[i].second;
    kinds.resize(kMostKinds - 1);
    kinds.emplace_back(kOthers, rest);
  }
  std::string text;
  for (const auto& [kind, count] : kinds)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, kind);
  return fmt::format("skipped {} file{}: {}; the first: {}", count_, count_ == 1 ? "" : "s", text,
                     printable_line(first_));
}

}  // namespace longstride::data
