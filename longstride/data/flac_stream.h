// Finds out about a FLAC file before it is decoded.
#pragma once

#include <vector>

#include "longstride/data/sound_view.h"

namespace longstride::data {

// One view for each FLAC stream in `view`, which begins with one; there are several if files were joined.
// Throws Error if a stream that does not state its length ends within a frame; the decoder would not notice.
std::vector<SoundView> split_flac(const SoundView& view);

}  // namespace longstride::data
