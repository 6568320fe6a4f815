#include "cli/file_argument.h"

#include "longstride/report/run_view.h"

namespace longstride::cli {

std::string file_argument(const std::string& path) {
  return shell_word(path.starts_with('-') ? "./" + path : path);
}

}  // namespace longstride::cli
