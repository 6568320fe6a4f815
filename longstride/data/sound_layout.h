// What the headers of sound files say about their sizes. libsndfile takes a file that ends early for a
// shorter one, and some sizes that mean "unknown" for true ones, so both are settled before it reads.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/data/sound_view.h"

namespace longstride::data {

// One view for each sound in `view`, of a container that states where its samples begin: several if sounds
// of one format were joined. Where the size was left open, as programs do that write into a pipe, the samples
// go on to the end of the file and the view shows the true size. Formats that are not known here pass as
// they are. Throws Error, naming the file and the bytes that are missing, if the samples are not all there.
std::vector<SoundView> split_containers(const SoundView& view);

// The samples' bytes of such a view.
SoundView samples_of(const SoundView& container);

}  // namespace longstride::data
