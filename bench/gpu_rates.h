// What a GPU can do: the floors that times on it are compared with.
#pragma once

#include <functional>

#include "longstride/device/device.h"
#include "longstride/run/config.h"

namespace longstride {

struct GpuRates {
  double copy = 0;            // bytes a second of a copy of 1 GiB in the GPU's memory, read and written
  double large_products = 0;  // FLOPs a second of 8192^3 in bf16
  double model_products = 0;  // of all products of a block of the model in training, in turns
};

// The median of 20 runs after 3 that do not count, by the GPU's clock.
double median_gpu_seconds(const std::function<void()>& work);

// GpuRates::copy alone.
double gpu_copy_rate(Device device);

// With the batch and the model of `config`. Inputs are random.
GpuRates measure_gpu_rates(Device device, const RunConfig& config);

}  // namespace longstride
