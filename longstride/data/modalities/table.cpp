#include <algorithm>
#include <array>

#include "longstride/base/check.h"
#include "longstride/data/modalities/audio.h"
#include "longstride/data/modalities/image.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/data/modalities/text.h"

namespace longstride {

namespace {

constexpr std::array<const Modality*, 3> kModalities{&kText, &kImage, &kAudio};

// "a, b or c"
std::string in_words(const std::vector<std::string>& names) {
  std::string words;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) words += i + 1 < names.size() ? ", " : " or ";
    words += names[i];
  }
  return words;
}

}  // namespace

std::span<const Modality* const> modalities() { return kModalities; }

const Modality* find_modality(std::string_view name) {
  const auto found = std::find_if(kModalities.begin(), kModalities.end(),
                                  [&](const Modality* modality) { return modality->name == name; });
  return found == kModalities.end() ? nullptr : *found;
}

const Modality& modality_of(const DataConfig& config) {
  const Modality* modality = find_modality(config.kind);
  if (modality != nullptr) return *modality;
  LONGSTRIDE_CHECK(config.kind == kOpenKind, "data.kind = {}, must be {}", config.kind, kinds_in_words());
  fail("data.kind is left open; say {}", kinds_in_words());
}

std::vector<std::string> kinds_of_data() {
  std::vector<std::string> kinds;
  for (const Modality* modality : kModalities) kinds.emplace_back(modality->name);
  return kinds;
}

std::string kinds_in_words(std::string_view remark) {
  std::vector<std::string> kinds;
  for (const Modality* modality : kModalities)
    kinds.push_back(std::string(modality->name) + std::string(modality->as_is ? remark : ""));
  return in_words(kinds);
}

std::string kinds_beside(const Modality& left_out) {
  std::vector<std::string> kinds = kinds_of_data();
  std::erase(kinds, left_out.name);
  return in_words(kinds);
}

}  // namespace longstride
