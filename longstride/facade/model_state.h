// What stands behind the classes of longstride.h.
#pragma once

#include <string>

#include "longstride/device/backend.h"
#include "longstride/run/run_directory.h"

namespace longstride {

// The calling thread computes on `device`, on a CPU with `count` threads, 0 for all; ends with the limit of
// threads that it had.
class AtWork {
 public:
  AtWork(Device device, int64_t count) : before_(threads()) {
    backend(device).use(device.index);
    set_threads(static_cast<int>(count));
  }
  ~AtWork() { set_threads(before_ == default_threads() ? 0 : before_); }
  AtWork(const AtWork&) = delete;
  AtWork& operator=(const AtWork&) = delete;

 private:
  int before_;
};

struct ModelState {
  LoadedModel loaded;
  std::string run = {};  // that it was loaded from, or empty
  const ModelConfig& config() const { return loaded.config().model; }
  AtWork at_work() const { return {loaded.device(), loaded.config().compute.threads}; }
};

}  // namespace longstride
