#include "longstride/run/saved_settings.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "longstride/base/text.h"

namespace longstride {

std::vector<std::string> settings_of_bits(const std::vector<std::string>& settings) {
  constexpr std::array<std::string_view, 3> kKeys{"compute.device", "compute.precision",
                                                  "compute.instructions"};
  std::vector<std::string> kept;
  for (const std::string& setting : settings) {
    const std::string_view key = trim(std::string_view(setting).substr(0, setting.find('=')));
    if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) kept.push_back(setting);
  }
  return kept;
}

std::vector<std::string> overrides_after(const std::string& precision, const std::vector<std::string>& saved,
                                         const std::vector<std::string>& given) {
  std::vector<std::string> overrides{"compute.precision=" + precision};
  const std::vector<std::string> settings = settings_of_bits(saved);
  overrides.insert(overrides.end(), settings.begin(), settings.end());
  overrides.insert(overrides.end(), given.begin(), given.end());
  return overrides;
}

}  // namespace longstride
