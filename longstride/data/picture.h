// PNG and JPEG pictures to and from pixels in memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "longstride/data/corpus.h"

namespace longstride::data {

bool begins_like_picture(std::span<const uint8_t> head);  // PNG or JPEG

// Receives the size and native channels (1 grey, 3 colour) before the pixels are decoded. Returns the
// channels wanted, 1 or 3, or throws.
using ChooseChannels = std::function<int64_t(const ImageShape& native)>;

// Decodes a PNG (any depth, palette, interlaced; 16 bits are scaled to 8, alpha is dropped, gamma is left
// alone) or a JPEG (grey or colour) to shape.bytes() bytes appended to `pixels`, row by row, channel fastest.
// Grey becomes colour by repetition, colour becomes grey as 0.299 R + 0.587 G + 0.114 B. Throws Error naming
// `label` if the file is damaged, cut off, or of another kind.
ImageShape decode_picture(std::span<const uint8_t> file, const std::string& label,
                          const ChooseChannels& choose, std::vector<uint8_t>& pixels);

// A PNG file of the pixels (height, width, channels) and nothing else. Channels are 1 to 4: grey, grey and
// alpha, RGB, RGBA.
std::vector<uint8_t> encode_png(std::span<const uint8_t> pixels, const ImageShape& shape);

}  // namespace longstride::data
