// How a file is packed: compressed, as an archive, both or neither.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "longstride/data/compressed_input.h"

namespace longstride::data {

enum class Container { file, tar, zip };

struct Packing {
  Compression compression = Compression::none;
  Container container = Container::file;
  int64_t begin = 0;   // of the compressed stream, after frames that decoders skip
  int64_t prefix = 0;  // bytes before a zip archive that unpacks itself
  bool plain() const { return compression == Compression::none && container == Container::file; }
};

// Decided by the first bytes of the file, and by the last ones for a zip archive that follows something
// else. Throws Error if the file is empty, or if its name claims a packing that its bytes do not show.
Packing packing_of(const std::string& path);

// True if the name ends like that of a compressed file or an archive.
bool is_named_as_packed(const std::string& path);

// The name without the suffix of a compression.
std::string without_compression_suffix(const std::string& path);

// True if a stream of that compression could begin with these bytes.
bool may_begin_stream(std::span<const uint8_t> head, Compression compression);

}  // namespace longstride::data
