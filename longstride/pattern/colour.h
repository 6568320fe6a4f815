#pragma once

#include <cstdint>

namespace longstride {

struct Colour {
  uint8_t red = 255, green = 255, blue = 255;
  bool operator==(const Colour&) const = default;
};

}  // namespace longstride
