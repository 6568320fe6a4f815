#include "longstride/base/mapped_file.h"

#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/despite_signals.h"

namespace longstride {

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int descriptor =
      despite_signals([&] { return open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (descriptor < 0) throw MappingError(fmt::format("cannot open {}: {}", path_, last_system_error()));
  struct stat status {};
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  void* mapped = MAP_FAILED;
  std::string reason = "it is not a regular file";
  if (regular && status.st_size > 0) {
    mapped = mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    reason = last_system_error();
  }
  close(descriptor);
  LONGSTRIDE_CHECK(regular, "cannot read {}: {}", path_, reason);
  if (status.st_size > 0 && mapped == MAP_FAILED)
    throw MappingError(fmt::format("cannot read {}: {}", path_, reason));
  if (status.st_size == 0) return;
  data_ = static_cast<std::byte*>(mapped);
  bytes_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace longstride
