// A whole file seen as read-only memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "longstride/base/check.h"

namespace longstride {

// The system could not open or map a file. That says nothing about its content, and may pass.
class MappingError : public Error {
 public:
  using Error::Error;
};

// Moves; never copies. The file must not be shortened by others while it is mapped: reading the lost part
// would end the process. Files that longstride writes are replaced by rename, never shortened, so a mapping
// keeps the old content.
class MappedFile {
 public:
  MappedFile() = default;
  // Throws MappingError naming the file if it cannot be opened or mapped; Error if it is no regular file.
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::byte* data() const { return data_; }  // page aligned; null for an empty file
  int64_t bytes() const { return bytes_; }
  std::span<const uint8_t> span() const {
    return {reinterpret_cast<const uint8_t*>(data_), static_cast<size_t>(bytes_)};
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace longstride
