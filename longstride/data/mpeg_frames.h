// The frames of MPEG audio (MP3 and layers I and II): where they are and what their headers say.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/data/sound_view.h"

namespace longstride::data {

// Where the first frame of a stream begins: at 0, or within the first `limit` bytes if several frames follow
// it there. -1 if nowhere.
int64_t find_mpeg_stream(const SoundView& view, int64_t limit);

// One view for each stream in `view`, which begins with a frame. There are several if files were joined, or
// if the rate, the layer, or mono and stereo change. Tags between them are left out. Every frame is looked
// at, since only their sum gives the length for sure. Throws Error, naming the file, if the last frame is
// not whole, if bytes in between are no frames, and if there are fewer frames than the stream's own header
// counts.
std::vector<SoundView> split_mpeg(const SoundView& view);

}  // namespace longstride::data
