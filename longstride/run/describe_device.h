// A device in words, as files name the one that computed them.
#pragma once

#include <string>

#include "longstride/device/device.h"

namespace longstride {

// The device, what may be used of its instruction sets, and the number of threads: "cpu: Intel Xeon, AVX2, 4 threads".
std::string describe_device(Device device);

}  // namespace longstride
