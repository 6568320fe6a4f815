// Compressed files as one stream of bytes. gzip and zstd are decompressed by their own libraries, since
// libarchive does not verify the checksums of the one and refuses the long windows of the other.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "longstride/data/files.h"

namespace longstride::data {

enum class Compression { none, gzip, bzip2, xz, zstd, lz4 };

// "gzip", "bzip2", ...
std::string name_of(Compression compression);

class CompressedInput {
 public:
  virtual ~CompressedInput() = default;
  // The next decompressed bytes; none at the end. Throws Error with the bare reason if the stream is damaged
  // or ends early.
  virtual std::span<const uint8_t> next() = 0;
  // Passes over up to `count` bytes and says how many; 0 where they have to be decompressed.
  virtual int64_t skip(int64_t count) { return 0; }
  // Bytes of the file that belong to its compressed streams; known at the end.
  virtual int64_t consumed() const = 0;
};

// All the streams of `path` that follow each other, from byte `begin` on; its bytes as they are for
// Compression::none.
std::unique_ptr<CompressedInput> open_compressed(const std::string& path, int64_t begin,
                                                 Compression compression);

// True if long windows of zstd are read.
bool reads_long_windows();

}  // namespace longstride::data
