#include "longstride/device/device.h"

#include <string>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/backend.h"

namespace longstride {

namespace {

// "cpu, cuda, cuda:N or auto"
std::string choices() {
  std::string text = "cpu";
  for (const BackendEntry& entry : kBackends)
    if (entry.kind != DeviceKind::cpu) text += fmt::format(", {0}, {0}:N", entry.name);
  return text + " or auto";
}

}  // namespace

Device parse_device(std::string_view text) {
  if (text == "auto") {
    for (const auto& [kind, name, built] : kBackends)
      if (kind != DeviceKind::cpu && backend(kind).why_not(0).empty()) return {kind, 0};
    return {};
  }
  const size_t colon = text.find(':');
  for (const auto& [kind, name, built] : kBackends) {
    if (text.substr(0, colon) != name) continue;
    // The CPU is one device, so it has no numbers.
    if (kind == DeviceKind::cpu && colon != text.npos) break;
    const int index =
        colon == text.npos ? 0 : static_cast<int>(parse_integer(text.substr(colon + 1), "device"));
    const std::string why_not = backend(kind).why_not(index);
    LONGSTRIDE_CHECK(why_not.empty(), "device {}: {}", text, why_not);
    backend(kind).use(index);
    return {kind, index};
  }
  fail("unknown device '{}'; use {}", text, choices());
}

std::string name_of(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : fmt::format("{}:{}", name_of(device.kind), device.index);
}

}  // namespace longstride
