// The devices of the ranks among themselves, without a way through memory of the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "longstride/device/device.h"
#include "longstride/dist/comm.h"

namespace longstride {

class DeviceComm {
 public:
  virtual ~DeviceComm() = default;

  // Queued as work of this rank's device, and may be part of a graph: every piece leaves for its rank, and the
  // pieces of the others arrive. What one rank sends another has to await, in the same order.
  virtual void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) = 0;
  // Why queued exchanges will not end, or empty.
  virtual std::string trouble() = 0;
  // Queued exchanges end, with what has arrived, and there can be no more: some rank is gone. Graphs with
  // exchanges have to go before this object.
  virtual void abandon() noexcept = 0;
};

// Joins `device` of each rank of `comm`; CPUs by `comm` itself, which must outlive the result. Throws Error on all
// of them if one cannot, or if two would share a device.
std::unique_ptr<DeviceComm> join_devices(Comm& comm, Device device);

// Whether all ranks are on one machine.
bool on_one_machine(Comm& comm);

// What a rank has of its machine.
struct ShareOfMachine {
  int ranks = 1;          // on the machine, this one too
  std::string no_device;  // why it cannot have a GPU of its own, or empty
};

// Each of several ranks on a machine sees one of its GPUs alone from now on: that of its number among them, or what
// its launcher gave it. Returns that, and how many ranks the machine has. To be called by all ranks, before any GPU is
// used.
ShareOfMachine take_own_device(Comm& comm);

}  // namespace longstride
