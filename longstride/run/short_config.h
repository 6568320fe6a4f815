// A config that a newcomer can read: what matters first, each field with a comment.
#pragma once

#include <string>

#include "longstride/run/config.h"

namespace longstride {

// TOML of the data, the shape of the model and the length of training. Everything else is left to the recipe
// "fast". `config` has nothing open. `heading` becomes comments at the top; it may have several lines.
std::string short_config(RunConfig config, const std::string& heading);

}  // namespace longstride
