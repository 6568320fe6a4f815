// Pictures: their bytes row by row, the channel fastest (../image.h reads the files), and PNG files of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "longstride/data/modalities/modality.h"

namespace longstride {

extern const Modality kImage;

// A picture of (height, width, channels) bytes, channels 1 to 4, as a PNG. The file appears whole or not at
// all. Throws Error if it cannot be written or the sizes do not fit.
void write_png(const std::string& path, std::span<const uint8_t> pixels, int64_t height, int64_t width,
               int64_t channels);

// Pictures of one shape in a grid, row by row, with one grey pixel between them (two from 64 pixels on).
// With `columns` 0 the grid is nearly square; cells that are left over are grey.
void write_png_grid(const std::string& path, const std::vector<std::vector<uint8_t>>& items, int64_t height,
                    int64_t width, int64_t channels, int64_t columns = 0);

struct Image {
  ImageShape shape;
  std::vector<uint8_t> pixels;  // (height, width, channels)
};

// A PNG or JPEG file; `channels` 0 takes those of the file, 1 and 3 convert. Throws Error.
Image read_picture(const std::string& path, int64_t channels = 0);

// The pixels of a PNG or JPEG file, which must have this shape (channels are converted). Throws Error
// otherwise.
std::vector<uint8_t> encode_image_file(const std::string& path, int64_t height, int64_t width,
                                       int64_t channels);

}  // namespace longstride
