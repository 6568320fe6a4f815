// The content of a packed file: the bytes of a compressed one, the entries of an archive.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "longstride/data/compressed_input.h"
#include "longstride/data/files.h"
#include "longstride/data/packing.h"

struct archive;
struct archive_entry;

namespace longstride::data {

// One entry of an archive.
struct Entry {
  enum class Kind { file, folder, hard_link, symbolic_link, other };
  Kind kind = Kind::other;
  std::string name;    // "member 3" if it has none
  std::string target;  // of a link
  int64_t bytes = -1;  // -1: not known before its end
  bool encrypted = false;
};

// The input of libarchive: the decompressed bytes and, for a tar, zeros up to the end of its last block.
struct DecompressedBlocks {
  CompressedInput* input = nullptr;
  std::vector<uint8_t> padding;  // as long as a block
  int64_t total = 0;
  std::span<const uint8_t> next();
  int64_t skip(int64_t count);
};

// Reads a packed file once from its beginning. All errors name the file.
class ArchiveReader {
 public:
  ArchiveReader(const std::string& path, Packing packing);
  ~ArchiveReader();
  ArchiveReader(const ArchiveReader&) = delete;
  ArchiveReader& operator=(const ArchiveReader&) = delete;

  // The next entry, or nothing at the end. A compressed file has one entry, or none if it is empty.
  std::optional<Entry> next();
  // The bytes of that entry; fewer than asked for only at its end.
  size_t read(std::span<uint8_t> bytes);
  // At the end: a remark about bytes after the compressed streams, which are not read. Empty before the end,
  // and if those bytes are zeros. Throws Error if a further stream seems to have begun.
  std::string trailing_remark() const;

 private:
  struct Free {
    void operator()(archive* reader) const;
  };
  archive* get() const { return archive_.get(); }
  void check(int status) const;
  int64_t first_other_than_zero(int64_t begin) const;  // its place in the file; -1 if there is none

  std::string path_;
  Packing packing_;
  FileDescriptor file_;
  std::unique_ptr<CompressedInput> input_;  // null for zip, which libarchive reads from its end
  DecompressedBlocks blocks_;
  std::unique_ptr<archive, Free> archive_;  // after the members that it reads from until it is freed
  int64_t entries_ = 0;
  bool is_open_ = false, at_end_ = false;
};

}  // namespace longstride::data
