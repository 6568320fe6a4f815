#include "longstride/dist/device_comm.h"

#include <algorithm>
#include <exception>
#include <fstream>
#include <utility>
#include <vector>

#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/device/backend.h"
#include "longstride/dist/nccl.h"

namespace longstride {

namespace {

// Equal for processes that see the same machine. Containers have names of their own and devices of their own.
std::string machine() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return std::string(name) + "/" + boot;
}

// Memory of the CPU.
class ByComm : public DeviceComm {
 public:
  explicit ByComm(Comm& comm) : comm_(comm) {}
  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    comm_.exchange(out, in);
  }
  std::string trouble() override { return {}; }
  void abandon() noexcept override {}

 private:
  Comm& comm_;
};

}  // namespace

bool on_one_machine(Comm& comm) {
  const std::vector<std::string> machines = comm.gather(machine());
  return std::all_of(machines.begin(), machines.end(),
                     [&](const auto& other) { return other == machines[0]; });
}

ShareOfMachine take_own_device(Comm& comm) {
  ShareOfMachine share;
  if (comm.size() == 1) return share;
  const std::vector<std::string> machines = comm.gather(machine());
  const auto own = machines.begin() + comm.rank();
  share.ranks = static_cast<int>(std::count(machines.begin(), machines.end(), *own));
  try {
    backend(DeviceKind::cuda).see_only(static_cast<int>(std::count(machines.begin(), own, *own)));
  } catch (const Error& error) {
    share.no_device = error.what();
  }
  return share;
}

std::unique_ptr<DeviceComm> join_devices(Comm& comm, Device device) {
  if (device.kind == DeviceKind::cpu) return std::make_unique<ByComm>(comm);
  std::string why, identity;
  try {
    LONGSTRIDE_CHECK(device.kind == DeviceKind::cuda, "several ranks cannot train on {}", name_of(device));
    load_nccl();
    identity = machine() + "/" + backend(device).identity(device.index);
  } catch (const std::exception& failure) {
    why = failure.what();
  }
  agree(comm, why);
  const std::vector<std::string> devices = comm.gather(identity);
  for (auto a = devices.begin(); a != devices.end(); ++a)
    for (auto b = devices.begin(); b != a; ++b)
      LONGSTRIDE_CHECK(*a != *b,
                       "ranks {} and {} would share a GPU; start no more ranks on a machine than it has GPUs",
                       b - devices.begin(), a - devices.begin());
  return join_nccl(comm, device);
}

}  // namespace longstride
