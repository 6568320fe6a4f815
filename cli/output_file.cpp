#include "cli/output_file.h"

#include <filesystem>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/run/run_directory.h"

#include "cli/standard_streams.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

// A run's folder may hold samples, curves and pages too, which may be written again.
bool is_of_run(const fs::path& inside) {
  const std::string ending = inside.extension().string();
  return *inside.begin() == "checkpoints" || ending == ".toml" || ending == ".json" || ending == ".jsonl" ||
         ending == ".safetensors";
}

}  // namespace

void prepare_output(const std::string& path, const std::string& option) {
  check_output(path, option);
  const OutputPlace place = find_output(path);
  if (is_standard_output(place)) print_results_on_standard_error();
  if (place.direct) return;
  const fs::path file(place.path);
  remove_stale_temporaries(file.has_parent_path() ? file.parent_path().string() : ".",
                           file.filename().string());
}

void spare_what_is_read(const std::string& path, const std::string& option,
                        const std::vector<std::string>& read) {
  std::error_code ignored;
  if (is_direct_output(path) || !fs::exists(path, ignored)) return;
  const fs::path output = fs::weakly_canonical(path, ignored);
  for (const std::string& name : read) {
    if (name.empty()) continue;
    LONGSTRIDE_CHECK(!fs::equivalent(path, name, ignored), "{} {}: that is the file to read", option, path);
    if (!fs::is_directory(name, ignored)) continue;
    const fs::path inside = output.lexically_relative(fs::weakly_canonical(name, ignored));
    const bool is_inside = !inside.empty() && *inside.begin() != "..";
    LONGSTRIDE_CHECK(!is_inside || (is_run_directory(name) && !is_of_run(inside)),
                     "{} {}: that is a file of the folder to read", option, path);
  }
}

bool same_file(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  std::error_code ignored;
  const auto place = [&](const std::string& name) {
    return fs::weakly_canonical(fs::absolute(name, ignored), ignored);
  };
  return place(a) == place(b);
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
