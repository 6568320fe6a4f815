#include "longstride/pattern/pattern.h"

#include <numeric>

#include "longstride/base/check.h"
#include "longstride/longstride.h"
#include "longstride/pattern/analyse.h"
#include "longstride/pattern/draw.h"

namespace longstride {

namespace {

Schedule schedule_of(std::string_view text) {
  try {
    return parse_schedule(text);
  } catch (const PatternError& error) {
    throw Error(error.with_caret());
  }
}

int64_t heads_of(const Schedule& schedule, int64_t heads) {
  if (heads != 0) return heads;
  int64_t fewest = 1;
  for (const LayerPattern& layer : schedule.cycle) fewest = std::lcm(fewest, std::ssize(layer.groups));
  return fewest;
}

}  // namespace

PatternReach pattern_reach(std::string_view pattern, int64_t positions, int64_t layers, int64_t heads) {
  const Schedule schedule = schedule_of(pattern);
  constexpr int64_t kMostLayers = 100000, kMostPositions = int64_t{1} << 30;
  LONGSTRIDE_CHECK(layers <= kMostLayers && positions <= kMostPositions,
                   "reach over {} positions and {} layers; up to {} and {} can be", positions, layers,
                   kMostPositions, kMostLayers);
  const Reach reach = analyse_reach(schedule, layers, heads_of(schedule, heads), positions);
  return {.complete = reach.complete,
          .layers = reach.layers,
          .blind_query = reach.blind_query,
          .blind_first = reach.blind_first,
          .blind_last = reach.blind_last,
          .blind_count = reach.blind_count,
          .exhaustive = reach.exhaustive,
          .text = describe(reach, positions)};
}

std::string pattern_svg(std::string_view pattern, int64_t positions, int64_t heads, int64_t pixels) {
  const Schedule schedule = schedule_of(pattern);
  return picture_of(schedule, heads_of(schedule, heads), positions, pixels).svg();
}

std::vector<std::string> pattern_layers(std::string_view pattern) {
  std::vector<std::string> layers;
  for (const LayerPattern& layer : schedule_of(pattern).cycle) layers.push_back(to_string(layer));
  return layers;
}

}  // namespace longstride
