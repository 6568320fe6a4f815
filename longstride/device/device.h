// Which processor computes.
#pragma once

#include <string>
#include <string_view>

#include "longstride/base/tensor.h"
#include "longstride/base/threads.h"  // of the CPU backend

namespace longstride {

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// "cpu", "cuda", "cuda:1" or "auto" (the first GPU if this build and machine have one). Throws Error.
Device parse_device(std::string_view text);
// Throws Error if no build on any machine has a device of that name.
void check_device_name(std::string_view text);
std::string name_of(Device device);

// The processor and the instruction sets that matter to us, as in "Intel Xeon, AVX-512 BF16 AMX".
std::string describe_cpu();
// Whether products of bf16 matrices run in hardware (AVX512-BF16 or AMX). instructions.h may forbid it.
bool cpu_has_bf16();

}  // namespace longstride
