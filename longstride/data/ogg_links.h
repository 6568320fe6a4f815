// The links of an Ogg file.
#pragma once

#include <vector>

#include "longstride/data/sound_view.h"

namespace longstride::data {

// One view for each link in `view`, which begins with a page. There are several if Ogg files were joined, as
// broadcasts do. libsndfile reads only the first one. Throws Error, naming the file, for damaged or missing
// pages and for a link without its end page.
std::vector<SoundView> split_ogg(const SoundView& view);

}  // namespace longstride::data
