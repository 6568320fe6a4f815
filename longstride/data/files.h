// Files for the data layer: listing and reading, with errors that name the file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace longstride::data {

// Owns an open file.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int number) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~FileDescriptor();
  int get() const { return number_; }
  // Gives the descriptor to the caller, who must close it.
  int release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

// Throws Error "cannot read PATH: reason".
FileDescriptor open_for_reading(const std::string& path);

// Up to bytes.size() bytes at the file's position; fewer only at its end. Throws Error naming `label`.
size_t read_some(int file, std::span<uint8_t> bytes, const std::string& label);
// The bytes [begin, begin + count), fewer at the file's end. Throws Error naming `label`.
std::vector<uint8_t> bytes_at(int file, int64_t begin, size_t count, const std::string& label);
// Writes all bytes at the file's position; false, with errno set, if that fails.
bool write_all(int file, std::span<const uint8_t> bytes);
// A new file in the folder that no name leads to, so that it is gone when closed, however the process ends.
// Below 0 inside, with errno set, if there can be none.
FileDescriptor unnamed_file(const std::string& folder);

// The whole file; throws Error if it cannot be read or is larger than `limit` bytes.
std::vector<uint8_t> read_whole_file(const std::string& path, int64_t limit);

struct SourceFile {
  std::string path;
  int64_t size = 0;
  int64_t modified = 0;  // nanoseconds since 1970
  int64_t changed = 0;   // last change of content, name or rights; a user cannot set it back; in nanoseconds
  uint64_t inode = 0;
};

// The file at `path` now. Throws Error if there is no regular file.
SourceFile stat_file(const std::string& path);

// `path` itself, or all regular files below the folder `path`, in the byte order of their paths. Leaves out
// hidden files (any component that begins with a dot) and folders that are runs of longstride. Throws Error
// if there is none or something cannot be read. `remark`, if given, reports dangling links; it is empty if
// there are none.
std::vector<SourceFile> list_files(const std::string& path, std::string* remark = nullptr);

// True if a component of a relative path begins with a dot and is not "." or "..".
bool is_hidden(const std::string& relative_path);

// "PNG" -> "png" of "a/b.PNG"; empty without a dot in the last component.
std::string lower_extension(const std::string& path);

}  // namespace longstride::data
