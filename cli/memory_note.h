// Little memory, said before it is taken.
#pragma once

#include <string>

#include "longstride/base/say.h"
#include "longstride/run/cpu_room.h"

namespace longstride::cli {

// A line on stderr with what check_cpu_room warns of, if anything.
inline void note_little_memory(const std::string& warning) {
  if (!warning.empty()) say("note: {}", warning);
}

}  // namespace longstride::cli
