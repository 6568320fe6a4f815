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

constexpr int64_t kMostIndex = 1023;

struct Named {
  const BackendEntry& entry;
  int index;
};

// "cuda:1". Throws Error for a name that no machine's device has.
Named named_device(std::string_view text) {
  const size_t colon = text.find(':');
  for (const BackendEntry& entry : kBackends) {
    if (text.substr(0, colon) != entry.name) continue;
    if (colon == text.npos) return {entry, 0};
    // The CPU is one device, so it has no numbers.
    if (entry.kind == DeviceKind::cpu) break;
    const int64_t index = parse_integer(text.substr(colon + 1), "device");
    if (index < 0 || index > kMostIndex) break;
    return {entry, static_cast<int>(index)};
  }
  fail("unknown device '{}'; use {}", text, choices());
}

}  // namespace

void check_device_name(std::string_view text) {
  if (text != "auto") named_device(text);
}

Device parse_device(std::string_view text) {
  if (text == "auto") {
    for (const auto& [kind, name, built] : kBackends)
      if (kind != DeviceKind::cpu && backend(kind).why_not(0).empty()) return {kind, 0};
    return {};
  }
  const Named device = named_device(text);
  const Backend& wanted = backend(device.entry.kind);
  const std::string why_not = wanted.why_not(device.index);
  LONGSTRIDE_CHECK(why_not.empty(), "device {}: {}", text, why_not);
  wanted.use(device.index);
  return {device.entry.kind, device.index};
}

std::string name_of(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : fmt::format("{}:{}", name_of(device.kind), device.index);
}

}  // namespace longstride
