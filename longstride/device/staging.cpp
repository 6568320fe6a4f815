#include "longstride/device/staging.h"

#include "longstride/device/backend.h"

namespace longstride {

PinnedBuffer::PinnedBuffer(DeviceKind kind, int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = {backend(kind).allocate_pinned(bytes),
           [kind, bytes](void* p) { backend(kind).release_pinned(p, bytes); }};
}

Staging::Staging(Device device, int64_t bytes)
    : on_device_(device, bytes), pinned_(device.kind, device.kind == DeviceKind::cpu ? 0 : bytes) {}

void Staging::upload(int64_t begin, int64_t count) const {
  if (pinned_.data() != nullptr)
    backend(on_device_.device())
        .copy(static_cast<char*>(device()) + begin, static_cast<const char*>(host()) + begin, count);
}

void Staging::download(int64_t begin, int64_t count) const {
  if (pinned_.data() != nullptr)
    backend(on_device_.device())
        .copy(static_cast<char*>(host()) + begin, static_cast<const char*>(device()) + begin, count);
}

void Staging::wait() const {
  if (pinned_.data() != nullptr) backend(on_device_.device()).synchronize();
}

}  // namespace longstride
