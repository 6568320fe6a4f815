#include "longstride/device/staging.h"

#include <cstring>

#include "longstride/device/cuda.h"

namespace longstride {

PinnedBuffer::PinnedBuffer(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = {cuda::allocate_pinned(bytes), [](void* p) { cuda::release_pinned(p); }};
  std::memset(data_.get(), 0, static_cast<size_t>(bytes));
}

Staging::Staging(Device device, int64_t bytes)
    : on_device_(device, bytes), pinned_(device.kind == DeviceKind::cpu ? 0 : bytes) {}

void Staging::upload(int64_t begin, int64_t count) const {
  if (pinned_.data() != nullptr)
    cuda::copy(static_cast<char*>(device()) + begin, static_cast<const char*>(host()) + begin, count);
}

void Staging::download(int64_t begin, int64_t count) const {
  if (pinned_.data() != nullptr)
    cuda::copy(static_cast<char*>(host()) + begin, static_cast<const char*>(device()) + begin, count);
}

void Staging::wait() const {
  if (pinned_.data() != nullptr) cuda::synchronize();
}

}  // namespace longstride
