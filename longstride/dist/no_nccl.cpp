#include "longstride/base/check.h"
#include "longstride/dist/nccl.h"

namespace longstride {

void load_nccl() {
  fail(
      "this longstride was built without NCCL, which joins GPUs; install a package such as libnccl-dev and "
      "build "
      "again, or train on one GPU");
}

std::unique_ptr<DeviceComm> join_nccl(Comm&, Device) {
  load_nccl();
  return nullptr;
}

}  // namespace longstride
