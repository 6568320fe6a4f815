// Warns of little memory before it is taken.
#pragma once

#include <string>

#include "longstride/base/say.h"
#include "longstride/run/cpu_room.h"

namespace longstride::cli {

// Prints the warning of check_cpu_room, if any, as a line on stderr.
inline void note_little_memory(const std::string& warning) {
  if (!warning.empty()) say("note: {}", warning);
}

}  // namespace longstride::cli
