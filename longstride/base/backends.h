// The list of backends. A backend is a kind of device: it computes, and tensors are in its memory.
#pragma once

#include <array>
#include <cstdint>

namespace longstride {

// A backend is named here, in the three places of this list, and nowhere else in the library. Its name is that in
// --device, the namespace of its ops under longstride/ops/NAME, and that of its devices in
// longstride/device/NAME.cpp. The first is this process's own processor and memory, and is always built. CMake
// defines LONGSTRIDE_BUILDS_NAME as 1 or 0 for each.
enum class DeviceKind : uint8_t { cpu, cuda };

struct BackendEntry {
  DeviceKind kind;
  const char* name;
  bool built;  // in this build
};
inline constexpr std::array kBackends{
    BackendEntry{DeviceKind::cpu, "cpu", LONGSTRIDE_BUILDS_cpu != 0},
    BackendEntry{DeviceKind::cuda, "cuda", LONGSTRIDE_BUILDS_cuda != 0},
};

// The ops of a backend: specialisations of its compute(), which ops/run.h speaks of.
struct OpContext;
template <DeviceKind>
struct OpsOf;

namespace cpu {
template <class Call>
void compute(const OpContext& context, const Call& call);
}
template <>
struct OpsOf<DeviceKind::cpu> {
  template <class Call>
  static void compute(const OpContext& context, const Call& call) {
    cpu::compute(context, call);
  }
};

namespace cuda {
template <class Call>
void compute(const OpContext& context, const Call& call);
}
template <>
struct OpsOf<DeviceKind::cuda> {
  template <class Call>
  static void compute(const OpContext& context, const Call& call) {
    cuda::compute(context, call);
  }
};

// What --device calls it.
constexpr const char* name_of(DeviceKind kind) {
  for (const BackendEntry& entry : kBackends)
    if (entry.kind == kind) return entry.name;
  return "";
}
constexpr bool is_built(DeviceKind kind) {
  for (const BackendEntry& entry : kBackends)
    if (entry.kind == kind) return entry.built;
  return false;
}

// Calls action.template operator()<kind>() for the built backend of that kind, and returns what it returns; if
// the build lacks it, otherwise().
template <size_t from = 0, class Action, class Otherwise>
auto with_backend(DeviceKind kind, const Action& action, const Otherwise& otherwise)
    -> decltype(otherwise()) {
  if constexpr (from < kBackends.size()) {
    constexpr BackendEntry entry = kBackends[from];
    if constexpr (entry.built)
      if (kind == entry.kind) return action.template operator()<entry.kind>();
    return with_backend<from + 1>(kind, action, otherwise);
  } else {
    return otherwise();
  }
}

}  // namespace longstride
