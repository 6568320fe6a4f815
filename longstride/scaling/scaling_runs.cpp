#include "longstride/scaling/scaling_runs.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "longstride/base/check.h"
#include "longstride/report/run_view.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

// Why a run is no point of a law; "" if it is one.
std::string why_left_out(const RunView& view) {
  if (!view.config) return view.remarks.empty() ? "its config cannot be read" : view.remarks.front();
  if (view.progress != RunProgress::finished) return "it is not finished: " + name_of(view.progress);
  if (!std::isfinite(view.best_bits) || view.best_bits <= 0) return "it has no validation loss";
  if (view.bytes <= 0) return "metrics.jsonl does not tell how many bytes it was trained on";
  return "";
}

}  // namespace

const char* name_of(Resource resource) {
  switch (resource) {
    case Resource::parameters:
      return "parameters";
    case Resource::data:
      return "data";
    case Resource::compute:
      break;
  }
  return "compute";
}

char symbol_of(Resource resource) {
  return resource == Resource::parameters ? 'N' : resource == Resource::data ? 'D' : 'C';
}

const char* unit_of(Resource resource) {
  return resource == Resource::parameters ? "" : resource == Resource::data ? "bytes" : "FLOPs";
}

double ScalingRun::amount_of(Resource resource) const {
  return resource == Resource::parameters ? parameters : resource == Resource::data ? bytes : flops;
}

ScalingRuns read_scaling_runs(const std::vector<std::string>& folders) {
  ScalingRuns all;
  std::set<std::string> seen;
  for (const std::string& folder : folders) {
    std::vector<std::string> found = find_runs(folder);
    LONGSTRIDE_CHECK(!found.empty(), "{}: there is no run in it", folder);
    for (const std::string& path : found) {
      std::error_code ignored;
      if (!seen.insert(fs::weakly_canonical(path, ignored).string()).second) continue;
      const RunView view = view_run(path);
      if (std::string why = why_left_out(view); !why.empty()) {
        all.left_out.push_back({path, std::move(why)});
        continue;
      }
      ScalingRun run;
      run.path = path;
      run.parameters = static_cast<double>(view.parameters);
      run.bytes = view.bytes;
      run.flops = view.flops_per_byte * view.bytes;
      run.loss = view.best_bits;
      run.epochs = view.train_bytes > 0 ? view.bytes / static_cast<double>(view.train_bytes) : 0;
      run.data = view.config->data.path;
      all.runs.push_back(std::move(run));
    }
  }
  return all;
}

std::vector<size_t> runs_for_law(const std::vector<ScalingRun>& runs, Resource resource) {
  std::vector<size_t> order(runs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const double of_a = runs[a].amount_of(resource), of_b = runs[b].amount_of(resource);
    return of_a < of_b || (of_a == of_b && runs[a].loss < runs[b].loss);
  });
  std::vector<size_t> kept;
  double lowest = std::numeric_limits<double>::infinity();
  for (const size_t run : order) {
    const bool same = !kept.empty() && runs[run].amount_of(resource) == runs[kept.back()].amount_of(resource);
    if (same || (resource == Resource::compute && runs[run].loss >= lowest)) continue;
    kept.push_back(run);
    lowest = std::min(lowest, runs[run].loss);
  }
  return kept;
}

ScalingLaw fit_scaling_law(const std::vector<ScalingRun>& runs, Resource resource) {
  ScalingLaw law;
  law.resource = resource;
  law.runs = runs_for_law(runs, resource);
  if (law.runs.size() < kFewestForPowerLaw) {
    law.why_not = fmt::format("{} run{} with different {}{}, at least {} are needed", law.runs.size(),
                              law.runs.size() == 1 ? "" : "s", name_of(resource),
                              resource == Resource::compute ? ", each better than all cheaper ones" : "",
                              kFewestForPowerLaw);
    return law;
  }
  std::vector<double> x, loss;
  for (const size_t run : law.runs)
    x.push_back(runs[run].amount_of(resource)), loss.push_back(runs[run].loss);
  try {
    law.fit = fit_power_law(x, loss);
  } catch (const Error& error) {
    law.why_not = error.what();
  }
  return law;
}

}  // namespace longstride
