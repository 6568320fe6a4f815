// The sum of the ranks' gradients and losses, in the order of the ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "longstride/device/device.h"
#include "longstride/dist/comm.h"
#include "longstride/dist/device_comm.h"
#include "longstride/ops/update.h"

namespace longstride {

class GradientSum {
 public:
  virtual ~GradientSum() = default;

  // Elements [begin, end) of the flat gradients are complete, as queued: they may travel from now on. Each
  // element comes once in a step, in the same order on all ranks.
  virtual void ready(int64_t begin, int64_t end) {}
  // Once all elements were ready: what is queued after this finds the sums in the gradients (with shares: in
  // this rank's share of them) and in control->losses, which is the device's.
  virtual void finish(UpdateControl* control) = 0;
  // Waits for all queued work of the device. Throws RankLost if a rank is gone: then the step came to nothing,
  // and weights and moments are as before.
  virtual void wait() = 0;
  // What is queued ends without a result, and there will be no more steps.
  virtual void abandon() noexcept {}
};

// For all ranks to call together. `devices` joins their devices. `shares`, if not empty: each rank needs the
// sums of its elements alone, [shares[rank], shares[rank + 1]).
std::unique_ptr<GradientSum> gradient_sum(Comm& comm, std::shared_ptr<DeviceComm> devices, Device device,
                                          const Tensor& flat_gradients, std::vector<int64_t> shares = {});
// Device bytes that it takes, for so many gradients.
int64_t gradient_sum_bytes(Device device, int ranks, int64_t gradients);

// Sums by `devices`, whose rank and size are those of `comm`, in pieces of about `piece` elements; with shares all
// at once. The caller keeps all of them.
std::unique_ptr<GradientSum> gradient_sum_of_devices(Comm& comm, std::shared_ptr<DeviceComm> devices,
                                                     Device device, const Tensor& flat_gradients,
                                                     int64_t piece, std::vector<int64_t> shares = {});

}  // namespace longstride
