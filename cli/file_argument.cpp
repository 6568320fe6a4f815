#include "cli/file_argument.h"

#include "longstride/base/printable.h"
#include "longstride/report/run_view.h"

namespace longstride::cli {

std::string file_argument(const std::string& path) {
  // What a terminal would obey is shown as what it is, in one line.
  return printable_line(shell_word(path.starts_with('-') ? "./" + path : path));
}

}  // namespace longstride::cli
