// Scaling laws as a picture.
#pragma once

#include <string>
#include <vector>

#include "longstride/scaling/scaling_runs.h"

namespace longstride {

// An SVG with a panel for each law that was fitted, both axes logarithmic: the runs, those that the law leaves to better
// ones hollow, the law, the 95 % band of its resampled fits, and the floor where it is near. The same bytes for the same
// runs. Empty if no law was fitted.
std::string scaling_plot(const std::vector<ScalingRun>& runs, const std::vector<ScalingLaw>& laws);

// "L(N) = 1.02 + (3.1e4 / N)^0.25"
std::string formula_of(const ScalingLaw& law);

}  // namespace longstride
