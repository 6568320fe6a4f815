#include "longstride/base/input_file.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/despite_signals.h"

namespace longstride {

namespace {

int64_t nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

// O_NONBLOCK, because opening a pipe would wait for a writer.
int open_input(const std::string& path) {
  const int descriptor =
      despite_signals([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  LONGSTRIDE_CHECK(descriptor >= 0, "cannot read {}: {}", path, last_system_error());
  return descriptor;
}

template <class... Args>
[[noreturn]] void fail_to_read(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace

InputFile::InputFile(std::string path) : InputFile(open_input(path), path) {}

InputFile::InputFile(int descriptor, std::string path) : path_(std::move(path)), descriptor_(descriptor) {
  struct stat status {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  const std::string reason = known ? "it is not a regular file" : last_system_error();
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(std::exchange(descriptor_, -1));
    fail("cannot read {}: {}", path_, reason);
  }
  bytes_ = status.st_size;
  modified_ = nanoseconds(status.st_mtim);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(std::exchange(other.bytes_, 0)),
      modified_(other.modified_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  std::swap(modified_, other.modified_);
  return *this;
}

void InputFile::read(int64_t offset, std::span<uint8_t> bytes) const {
  LONGSTRIDE_CHECK(offset >= 0 && offset + static_cast<int64_t>(bytes.size()) <= bytes_,
                   "{}: bytes [{}, {}) of {}", path_, offset, offset + static_cast<int64_t>(bytes.size()),
                   bytes_);
  // A file that was cut and has grown again holds other bytes in the same places. So the size is asked for
  // first.
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_to_read("cannot read {}: {}", path_, last_system_error());
  for (size_t done = 0; done < bytes.size() && status.st_size >= bytes_;) {
    const ssize_t count = ::pread(descriptor_, bytes.data() + done, bytes.size() - done,
                                  static_cast<off_t>(offset + static_cast<int64_t>(done)));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_to_read("cannot read {} any more: {}", path_, last_system_error());
    done += static_cast<size_t>(count);
    if (count == 0 && ::fstat(descriptor_, &status) != 0) status.st_size = 0;
    if (count == 0 && status.st_size >= bytes_) fail_to_read("cannot read {}: it ends early", path_);
  }
  if (status.st_size < bytes_)
    fail_to_read(
        "{} changed while it was read: it has {} bytes, {} were there; give a copy that stays as it is",
        path_, status.st_size, bytes_);
}

void InputFile::check_unchanged() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_to_read("cannot read {}: {}", path_, last_system_error());
  if (status.st_size != bytes_)
    fail_to_read(
        "{} changed while it was read: it has {} bytes, {} were there; give a copy that stays as it is",
        path_, status.st_size, bytes_);
  if (nanoseconds(status.st_mtim) != modified_)
    fail_to_read("{} was written while it was read; give a copy that stays as it is", path_);
}

}  // namespace longstride
