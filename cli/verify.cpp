// `longstride verify`: whether files are what was written.
#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"
#include "longstride/checkpoint/safetensors.h"
#include "longstride/compress/codec.h"
#include "longstride/compress/container.h"
#include "longstride/report/run_view.h"
#include "longstride/report/verify_run.h"
#include "longstride/run/run_directory.h"
#include "longstride/sample/session.h"

#include "cli/commands.h"
#include "cli/standard_streams.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

// A compressed file, a state of samples, or weights, told apart by how they begin.
VerifiedFile verify_file(const std::string& path) {
  VerifiedFile file;
  file.path = path;
  file.how = "digest";
  try {
    std::error_code error;
    file.missing = !fs::exists(path, error) || error;
    LONGSTRIDE_CHECK(!file.missing, "{}: there is no such file or run", path);
    LONGSTRIDE_CHECK(fs::is_regular_file(path, error), "{} is not a regular file", path);
    file.bytes = static_cast<int64_t>(fs::file_size(path, error));
    std::string begin(32, '\0');
    std::ifstream(path, std::ios::binary).read(begin.data(), static_cast<std::streamsize>(begin.size()));
    if (begin.starts_with("longstride compressed ")) {
      const CompressedFile compressed(path);
      file.remark = fmt::format("compressed with model {}, step {}", compressed.header().model.substr(0, 8),
                                compressed.header().step);
      if (!compressed.header().model_config.empty()) {
        const std::string digest = embedded_digest(compressed.header(), path);
        LONGSTRIDE_CHECK(digest == compressed.header().model,
                         "{} is damaged: the model in it is {}, not the one that it names", path,
                         digest.substr(0, 8));
        file.remark +=
            fmt::format(", which is in it ({})",
                        human_bytes(static_cast<double>(compressed.header().model_weights.size())));
      }
    } else if (is_session_file(path)) {
      const Session session = load_session(path);
      file.remark = fmt::format("state of {} samples of model {}, step {}", session.sequences.size(),
                                session.model.substr(0, 8), session.step);
    } else if (path.ends_with(".safetensors")) {
      file.how = "read";
      file.remark =
          fmt::format("{} tensors; weights alone have no digest", SafetensorsFile(path).names().size());
    } else {
      fail("{} is no run, compressed file, state of samples or file of weights", path);
    }
  } catch (const std::exception& problem) {
    file.problem = problem.what();
  }
  return file;
}

std::vector<VerifiedFile> verify(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return {verify_file(path)};
  if (is_run_directory(path)) return verify_run(path);
  std::vector<VerifiedFile> files;
  const std::vector<std::string> runs = find_runs(path);
  LONGSTRIDE_CHECK(!runs.empty(), "{}: there is no run in it", path);
  for (const std::string& run : runs)
    for (VerifiedFile& file : verify_run(run)) files.push_back(std::move(file));
  return files;
}

void print_table(const std::vector<VerifiedFile>& files) {
  size_t width = 4;
  for (const VerifiedFile& file : files) width = std::max(width, printable_line(file.path).size());
  print_result("{:<{}}  {:>9}  {:<6}  state\n", "file", width, "bytes", "by");
  for (const VerifiedFile& file : files) {
    const std::string& more = file.problem.empty() ? file.remark : file.problem;
    print_result("{:<{}}  {:>9}  {:<6}  {}{}{}\n", printable_line(file.path), width,
                 human_bytes(static_cast<double>(file.bytes)), file.how,
                 file.problem.empty() ? "whole"
                 : file.missing       ? "MISSING"
                                      : "DAMAGED",
                 more.empty() ? "" : ": ", printable_line(more));
  }
}

}  // namespace

int run_verify(const VerifyOptions& options) {
  const auto begun = std::chrono::steady_clock::now();
  std::vector<VerifiedFile> files;
  for (const std::string& path : options.paths)
    for (VerifiedFile& file : verify(path)) files.push_back(std::move(file));
  const auto damaged = std::count_if(files.begin(), files.end(),
                                     [](const VerifiedFile& file) { return !file.problem.empty(); });
  const bool all_missing = std::all_of(files.begin(), files.end(), [](const VerifiedFile& file) {
    return file.problem.empty() || file.missing;
  });
  if (options.json) {
    nlohmann::json out = nlohmann::json::array();
    for (const VerifiedFile& file : files)
      out.push_back({{"file", file.path},
                     {"bytes", file.bytes},
                     {"by", file.how},
                     {"whole", file.problem.empty()},
                     {"problem", file.problem},
                     {"remark", file.remark}});
    print_json(out);
  } else {
    print_table(files);
    int64_t bytes = 0;
    for (const VerifiedFile& file : files) bytes += file.bytes;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
    if (damaged == 0)
      print_result("all {} are whole, {} in {:.2f} s\n", files.size(),
                   human_bytes(static_cast<double>(bytes)), seconds.count());
  }
  LONGSTRIDE_CHECK(damaged == 0, "{} of {} files {} {}", damaged, files.size(), damaged == 1 ? "is" : "are",
                   all_missing ? "missing" : "damaged");
  return 0;
}

}  // namespace longstride::cli
