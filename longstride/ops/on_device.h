// What ops need to know of a device.
#pragma once

#include "longstride/device/backend.h"
#include "longstride/device/device.h"

namespace longstride {

inline bool on_gpu(Device device) { return device.kind != DeviceKind::cpu; }

// Throws Error, opened by the op's name, if the build has no op for the device.
inline void check_device(const char* op, Device device) {
  LONGSTRIDE_CHECK(is_built(device.kind), "{}: {}", op, backend(device).why_not(device.index));
}

// Whether matrix products and branches may have this dtype.
inline bool is_product_dtype(Device device, DType dtype) { return backend(device).has_product(dtype); }
inline const char* product_dtypes(Device device) {
  return is_product_dtype(device, DType::f16) ? "f32, bf16 or f16" : "f32 or bf16 (f16 needs a GPU)";
}

}  // namespace longstride
