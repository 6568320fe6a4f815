// A run of two ranks of which one is killed.
#pragma once

#include <string>

namespace longstride {

// What a shell does in the background before `longstride train small.toml --run RUN ...`: kills rank 1 once the run has
// a checkpoint that was validated, and all of them if that ended nothing. Of this folder's processes alone, and of this
// run's: other tests may run beside it, and a slow machine may be at the next run by then.
inline std::string killer_of_rank_1(const std::string& run) {
  const std::string ours = "for p in $(pgrep -f 'longstride train small.toml --run " + run +
                           "'); do [ \"$(readlink /proc/$p/cwd)\" = \"$PWD\" ] || continue; ";
  return "true; (for i in $(seq 300); do sleep 0.1; [ -e " + run + "/best.json ] || continue; " + ours +
         "tr '\\0' '\\n' 2>/dev/null </proc/$p/environ | grep -q '^RANK=1$' && kill -9 $p; done; break; "
         "done; "
         "sleep 40; " +
         ours + "kill -9 $p; done) >/dev/null 2>&1 & ";
}

}  // namespace longstride
