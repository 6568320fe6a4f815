// PNG files that hold only pixels, so that nothing is lost on the way to pixels and back.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace longstride::data {

// Throws Error naming `path` unless the bytes are a PNG file that holds only pixels: not of 16 bits, no
// transparency, no second picture, no meaning of colours, no text, nothing after its end.
void check_plain_png(std::span<const uint8_t> file, const std::string& path);

}  // namespace longstride::data
