#include "cli/output_file.h"

#include <filesystem>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"

#include "cli/standard_streams.h"

namespace longstride::cli {

namespace fs = std::filesystem;

void prepare_output(const std::string& path, const std::string& option) {
  check_output(path, option);
  const OutputPlace place = find_output(path);
  if (is_standard_output(place)) print_results_on_standard_error();
  if (place.direct) return;
  const fs::path file(place.path);
  remove_stale_temporaries(file.has_parent_path() ? file.parent_path().string() : ".",
                           file.filename().string());
}

void prepare_state(const std::string& path, const std::string& option) {
  check_output(path, option);
  LONGSTRIDE_CHECK(!find_output(path).direct, "{} {}: that is no file that could be replaced and read again",
                   option, path);
  prepare_output(path, option);
}

bool is_direct_output(const std::string& path) {
  try {
    return !path.empty() && find_output(path).direct;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace longstride::cli
