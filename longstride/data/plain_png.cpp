#include "longstride/data/plain_png.h"

#include <cstring>
#include <string_view>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

uint32_t big_endian(std::span<const uint8_t> bytes, size_t at) {
  return uint32_t{bytes[at]} << 24 | uint32_t{bytes[at + 1]} << 16 | uint32_t{bytes[at + 2]} << 8 |
         bytes[at + 3];
}

// What else a PNG may hold, in words for people.
std::string_view meaning_of(std::string_view chunk) {
  if (chunk == "tRNS") return "transparent pixels";
  if (chunk == "acTL" || chunk == "fcTL" || chunk == "fdAT") return "an animation";
  if (chunk == "gAMA" || chunk == "iCCP" || chunk == "cHRM" || chunk == "sRGB" || chunk == "cICP")
    return "what its colours mean";
  if (chunk == "tEXt" || chunk == "zTXt" || chunk == "iTXt") return "text";
  if (chunk == "eXIf") return "a camera's notes";
  if (chunk == "pHYs") return "the size of its pixels";
  return "more than pixels";
}

}  // namespace

void check_plain_png(std::span<const uint8_t> file, const std::string& path) {
  constexpr uint8_t kSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr size_t kDepth = 24, kColour = 25, kInterlace = 28, kFirstChunk = 8;
  constexpr uint8_t kAlpha = 4;
  LONGSTRIDE_CHECK(file.size() > 33 && std::memcmp(file.data(), kSignature, sizeof kSignature) == 0,
                   "{} is no PNG; pictures are compressed from PNG files, one at a time", path);
  LONGSTRIDE_CHECK(file[kDepth] <= 8, "{} has {} bits a channel; the model's pictures have 8", path,
                   file[kDepth]);
  LONGSTRIDE_CHECK((file[kColour] & kAlpha) == 0,
                   "{} has transparent pixels, which the model's pictures have not; remove it", path);
  LONGSTRIDE_CHECK(file[kInterlace] == 0, "{} is interlaced, which would be lost; save it without", path);
  for (size_t at = kFirstChunk; at + 12 <= file.size(); at += size_t{12} + big_endian(file, at)) {
    const std::string_view chunk(reinterpret_cast<const char*>(file.data()) + at + 4, 4);
    const size_t end = at + 12 + big_endian(file, at);
    LONGSTRIDE_CHECK(end <= file.size(), "{} is damaged or cut off: a part of {} bytes is missing", path,
                     big_endian(file, at));
    LONGSTRIDE_CHECK(chunk != "IEND" || end == file.size(),
                     "{} has {} bytes behind the end of its picture, which would be lost; remove them", path,
                     file.size() - end);
    LONGSTRIDE_CHECK(chunk == "IHDR" || chunk == "PLTE" || chunk == "IDAT" || chunk == "IEND",
                     "{} holds {} ({}), which would be lost; remove it, as in: convert {} -strip -define "
                     "png:exclude-chunks=all plain.png",
                     path, meaning_of(chunk), chunk, path);
  }
}

}  // namespace longstride::data
