// The list of backends. A backend is a kind of device: it computes, and tensors are in its memory.
#pragma once

#include <cstdint>

namespace longstride {

// One name for each backend. It is the name in --device, the value of DeviceKind, the namespace of its ops
// under longstride/ops/NAME, and of its devices in longstride/device/NAME.cpp. Nothing else in the library
// lists them. The first is this process's own processor and memory, and is always built. CMake defines
// LONGSTRIDE_BUILDS_NAME as 1 or 0 for each.
#define LONGSTRIDE_FOR_EACH_BACKEND(DO) DO(cpu) DO(cuda)

#define LONGSTRIDE_KIND(name) name,
enum class DeviceKind : uint8_t { LONGSTRIDE_FOR_EACH_BACKEND(LONGSTRIDE_KIND) };
#undef LONGSTRIDE_KIND

// What --device calls it.
constexpr const char* name_of(DeviceKind kind) {
#define LONGSTRIDE_NAME(name) \
  if (kind == DeviceKind::name) return #name;
  LONGSTRIDE_FOR_EACH_BACKEND(LONGSTRIDE_NAME)
#undef LONGSTRIDE_NAME
  return "";
}

// Whether this build has it.
constexpr bool is_built(DeviceKind kind) {
#define LONGSTRIDE_BUILT(name) \
  if (kind == DeviceKind::name) return LONGSTRIDE_BUILDS_##name != 0;
  LONGSTRIDE_FOR_EACH_BACKEND(LONGSTRIDE_BUILT)
#undef LONGSTRIDE_BUILT
  return false;
}

}  // namespace longstride
