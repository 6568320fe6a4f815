// What ops ask of a device.
#pragma once

#include "longstride/device/cuda.h"
#include "longstride/device/device.h"

namespace longstride {

inline bool on_gpu(Device device) { return device.kind == DeviceKind::cuda; }

// Throws Error, opened by the op's name, where the build has no op for the device.
inline void check_device(const char* op, Device device) {
  LONGSTRIDE_CHECK(!on_gpu(device) || cuda::built(), "{}: {}", op, cuda::why_not(device.index));
}

// What matrix products and what lies on branches may be held in.
inline bool is_product_dtype(Device device, DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || (dtype == DType::f16 && on_gpu(device));
}
inline const char* product_dtypes(Device device) {
  return on_gpu(device) ? "f32, bf16 or f16" : "f32 or bf16 (f16 needs a GPU)";
}

}  // namespace longstride
