// A file of the user's, read by position.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "longstride/base/check.h"

namespace longstride {

// A file that was open for reading has changed, or can no longer be read.
class InputError : public Error {
 public:
  using Error::Error;
};

// Open for as long as the object lives, so that a file that is removed or replaced meanwhile is still read.
// Others may shorten the file at any time: reading it is then an error, where a mapping would end the
// process. Bytes that others append are not seen. Moves; never copies.
class InputFile {
 public:
  InputFile() = default;
  // Throws Error naming the file if it cannot be opened or is no regular file.
  explicit InputFile(std::string path);
  // Takes the open descriptor of a regular file; `path` names it in messages.
  InputFile(int descriptor, std::string path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;

  // Fills `bytes` from `offset` on; offset + bytes.size() is at most bytes(). Safe from several threads.
  // Throws InputError if the file is shorter than it was, or cannot be read.
  void read(int64_t offset, std::span<uint8_t> bytes) const;
  // Throws InputError if size or time of the last change are no longer what they were when the file was
  // opened.
  void check_unchanged() const;

  int64_t bytes() const { return bytes_; }  // when it was opened
  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t bytes_ = 0;
  int64_t modified_ = 0;  // nanoseconds since 1970
};

}  // namespace longstride
