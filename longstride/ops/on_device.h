// What both dispatchers ask of a device.
#pragma once

#include "longstride/device/cuda.h"
#include "longstride/device/device.h"

namespace longstride {

inline bool on_gpu(Device device) { return device.kind == DeviceKind::cuda; }

// Throws Error, opened by the op's name, where the build has no op for the device.
inline void check_device(const char* op, Device device) {
  LONGSTRIDE_CHECK(!on_gpu(device) || cuda::built(), "{}: {}", op, cuda::why_not(device.index));
}

}  // namespace longstride
