// Compressed files as one stream of bytes. gzip and zstd are decompressed by their own libraries, because
// libarchive does not verify the checksums of gzip and refuses the long windows of zstd.
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
  // The next decompressed bytes; none at the end. Throws Error, with only the reason, if the stream is
  // damaged or ends early.
  virtual std::span<const uint8_t> next() = 0;
  // Skips up to `count` bytes and returns how many; 0 where bytes have to be decompressed first.
  virtual int64_t skip(int64_t count) { return 0; }
  // Bytes of the file that belong to its compressed streams; known at the end.
  virtual int64_t consumed() const = 0;
};

// All consecutive streams of `path` from byte `begin` on; for Compression::none its bytes as they are.
std::unique_ptr<CompressedInput> open_compressed(const std::string& path, int64_t begin,
                                                 Compression compression);

// Whether long windows of zstd can be read.
bool reads_long_windows();

}  // namespace longstride::data
