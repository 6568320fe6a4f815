// Memory of the CPU beside that of a device, for the data that each step copies to and from the device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "longstride/device/memory.h"

namespace longstride {

// Memory of the CPU from which and to which devices of a kind copy while the CPU goes on. Zero at first.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(DeviceKind kind, int64_t bytes);
  void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, std::function<void(void*)>> data_;
  int64_t bytes_ = 0;
};

// The same bytes on a device and, pinned, on the CPU; one memory if the device is the CPU. Zero at first.
class Staging {
 public:
  Staging() = default;
  Staging(Device device, int64_t bytes);

  void* host() const { return pinned_.data() != nullptr ? pinned_.data() : on_device_.data(); }
  void* device() const { return on_device_.data(); }
  int64_t bytes() const { return on_device_.bytes(); }

  // Queue a copy of bytes [begin, begin + count) to the device, or back. Bytes that are uploaded must not
  // change on the CPU's side until wait().
  void upload(int64_t begin, int64_t count) const;
  void download(int64_t begin, int64_t count) const;
  // Waits until all queued work of the device is done.
  void wait() const;

 private:
  Buffer on_device_;
  PinnedBuffer pinned_;
};

}  // namespace longstride
