#include "longstride/train/fit.h"

#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/run/gpu_room.h"
#include "longstride/train/memory.h"

namespace longstride {

namespace {

struct Scale {
  int64_t unit, most;  // an extent is a multiple of `unit`
};

Scale scale_of(const RunConfig& config, Extent extent) {
  switch (extent) {
    case Extent::batch:
      return {1, kMostGpuSequences};
    case Extent::context:
      return {64, int64_t{1} << 24};
    case Extent::layers:
      return {std::ssize(config.model.schedule().cycle), 4096};
  }
  fail("no such extent");
}

RunConfig with_extent(RunConfig config, Extent extent, int64_t value) {
  switch (extent) {
    case Extent::batch:
      config.train.batch = value, config.train.micro_batch = 0;
      break;
    case Extent::context:
      config.model.context = value, config.train.context_schedule = "";
      break;
    case Extent::layers:
      config.model.layers = value;
      break;
  }
  return config;
}

bool fits(const RunConfig& config, int64_t room) {
  try {
    config.check();
    return training_memory(config).total() <= room;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

int64_t extent_of(const RunConfig& config, Extent extent) {
  switch (extent) {
    case Extent::batch:
      return config.train.batch;
    case Extent::context:
      return config.model.context;
    case Extent::layers:
      return config.model.layers;
  }
  fail("no such extent");
}

std::optional<RunConfig> largest_that_fits(const RunConfig& config, Extent extent, int64_t room) {
  const auto [unit, most] = scale_of(config, extent);
  const auto works = [&, unit = unit](int64_t units) {
    return fits(with_extent(config, extent, units * unit), room);
  };
  // Memory grows with every extent, so the largest is found by doubling and then by halves. What the config has is
  // where the search begins.
  int64_t low = std::max<int64_t>(1, extent_of(config, extent) / unit);
  while (low > 1 && !works(low)) low /= 2;
  if (!works(low)) return {};
  int64_t high = low;
  while (high == low && high < most / unit) {
    high = std::min(2 * low, most / unit);
    if (works(high)) low = high;
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (works(middle) ? low : high) = middle;
  }
  return with_extent(config, extent, low * unit);
}

}  // namespace longstride
