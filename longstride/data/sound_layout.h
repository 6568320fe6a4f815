// What the headers of sound files say about sizes. libsndfile takes a file that ends early for a shorter
// one, and some sizes that mean "unknown" for true ones. So both are settled before it reads.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/data/sound_view.h"

namespace longstride::data {

// One view for each sound in `view`, whose container must state where its samples begin; there are several
// if sounds of one format were joined. Programs that write into a pipe leave the size open: then the samples
// go on to the end of the file, and the view shows the true size. Formats that are not known here pass
// unchanged. Throws Error, naming the file and the missing bytes, if the samples are not all there.
std::vector<SoundView> split_containers(const SoundView& view);

// The bytes of the samples in such a view.
SoundView samples_of(const SoundView& container);

}  // namespace longstride::data
