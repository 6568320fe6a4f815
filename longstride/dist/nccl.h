// GPUs joined by NVIDIA's NCCL, which is looked for when it is needed: a machine without it, or with one GPU,
// runs everything else.
#pragma once

#include <memory>

#include "longstride/dist/device_comm.h"

namespace longstride {

// Throws Error if NCCL cannot be loaded, is too old, or this build knows nothing of it.
void load_nccl();
// All ranks call this together, after load_nccl().
std::unique_ptr<DeviceComm> join_nccl(Comm& comm, Device device);

}  // namespace longstride
