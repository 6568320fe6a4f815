#include "longstride/device/device.h"

#include <string>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/backend.h"

namespace longstride {

namespace {

constexpr DeviceKind kKinds[] = {
#define LONGSTRIDE_KIND(name) DeviceKind::name,
    LONGSTRIDE_FOR_EACH_BACKEND(LONGSTRIDE_KIND)
#undef LONGSTRIDE_KIND
};

// "cpu, cuda, cuda:N or auto"
std::string choices() {
  std::string text = "cpu";
  for (const DeviceKind kind : kKinds)
    if (kind != DeviceKind::cpu) text += fmt::format(", {0}, {0}:N", name_of(kind));
  return text + " or auto";
}

}  // namespace

Device parse_device(std::string_view text) {
  if (text == "auto") {
    for (const DeviceKind kind : kKinds)
      if (kind != DeviceKind::cpu && backend(kind).why_not(0).empty()) return {kind, 0};
    return {};
  }
  const size_t colon = text.find(':');
  for (const DeviceKind kind : kKinds) {
    if (text.substr(0, colon) != name_of(kind)) continue;
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
