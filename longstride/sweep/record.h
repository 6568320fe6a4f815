// What a sweep was begun with, FOLDER/sweep.json, so that nothing else goes on in its place.
#pragma once

#include <string>
#include <vector>

#include "longstride/run/config.h"
#include "longstride/sweep/vary.h"

namespace longstride {

// Makes `folder` and its record where there is none. Where there is one, throws Error that names what is different from
// `config` or `lists`. Throws Error if the folder holds something else.
void open_sweep(const std::string& folder, RunConfig config, const std::vector<Vary>& lists);

}  // namespace longstride
