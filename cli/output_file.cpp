#include "cli/output_file.h"

#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "longstride/base/check.h"

namespace longstride::cli {

namespace fs = std::filesystem;

void check_writable(const std::string& path, const std::string& option) {
  std::error_code ignored;
  const fs::file_status there = fs::status(path, ignored);
  LONGSTRIDE_CHECK(!fs::exists(there) || fs::is_regular_file(there), "{} {}: that is {}", option, path,
                   fs::is_directory(there) ? "a folder" : "no file that could be replaced");
  const fs::path parent = fs::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  LONGSTRIDE_CHECK(fs::is_directory(folder, ignored), "{} {}: there is no folder {}", option, path, folder);
  std::string probe = (fs::path(folder) / ".tmp-XXXXXX").string();
  const int file = mkostemp(probe.data(), O_CLOEXEC);
  LONGSTRIDE_CHECK(file >= 0, "{} {}: cannot write in {}: {}", option, path, folder, last_system_error());
  close(file);
  unlink(probe.c_str());
}

}  // namespace longstride::cli
