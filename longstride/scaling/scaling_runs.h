// Runs as points of scaling laws.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "longstride/scaling/power_law.h"

namespace longstride {

// What a loss falls with: the parameters of the model, the bytes that it was trained on (again each time that they
// come again), and the FLOPs of all training.
enum class Resource { parameters, data, compute };
inline constexpr std::array kResources{Resource::parameters, Resource::data, Resource::compute};
const char* name_of(Resource resource);  // "parameters"
char symbol_of(Resource resource);       // 'N', 'D', 'C'
const char* unit_of(Resource resource);  // "", "bytes", "FLOPs"

struct ScalingRun {
  std::string path;
  double parameters = 0, bytes = 0, flops = 0;
  double loss = 0;    // best validation, in bits per byte
  double epochs = 0;  // 0: not known
  std::string data;   // that it learns from
  double amount_of(Resource resource) const;
};

struct LeftOutRun {
  std::string path, why;
};

struct ScalingRuns {
  std::vector<ScalingRun> runs;
  std::vector<LeftOutRun> left_out;
};

// Reads the runs at and below these folders, each once. Left out, with the reason, is a run that cannot be read, is not
// finished, or has no validation. Throws Error for a folder that there is not or that holds no run.
ScalingRuns read_scaling_runs(const std::vector<std::string>& folders);

// The runs that a law is fitted to, as indices, by their amount. Of runs with the same amount the best counts, since the
// law is of what that amount can reach. Of compute only those count that are better than all cheaper ones, for the same
// reason.
std::vector<size_t> runs_for_law(const std::vector<ScalingRun>& runs, Resource resource);

struct ScalingLaw {
  Resource resource = Resource::parameters;
  std::vector<size_t> runs;  // that it was fitted to
  std::optional<PowerLawFit> fit;
  std::string why_not;  // where there is none
};
ScalingLaw fit_scaling_law(const std::vector<ScalingRun>& runs, Resource resource);

}  // namespace longstride
