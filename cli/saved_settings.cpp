#include "cli/saved_settings.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "longstride/base/text.h"

namespace longstride::cli {

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

}  // namespace longstride::cli
