// A look at a GPU's free memory before it is asked for.
#pragma once

#include <cstdint>
#include <string_view>

#include "longstride/device/device.h"

namespace longstride {

// Throws Error if `device` is a GPU with less than `bytes` free: "not enough memory on the GPU: WHAT needs
// ...; ADVICE".
void check_gpu_room(Device device, int64_t bytes, std::string_view what, std::string_view advice);

}  // namespace longstride
