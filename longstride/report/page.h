// A report on runs: one HTML page that needs nothing else, neither the network nor other files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/atomic_file.h"
#include "longstride/report/metrics_reader.h"
#include "longstride/report/run_view.h"

namespace longstride {

struct PageRun {
  RunView view;
  const MetricsReader* metrics = nullptr;  // its curves; must outlive the page's writing
};

struct PageOptions {
  std::string title = "Runs";
  // Above 0 the page loads itself again after so many seconds.
  int64_t refresh_seconds = 0;
  double now = 0;  // seconds since 1970
};

// Writes the page. All text of the runs is escaped; bytes that are no text appear as \xNN.
void write_page(ByteSink& sink, const std::vector<PageRun>& runs, const PageOptions& options);

// Text for HTML, between tags or in a quoted attribute.
std::string escape_html(std::string_view text);
// JSON that may stand in a script element.
std::string escape_json_for_html(std::string_view json);
// Bytes in base64.
std::string base64(std::string_view bytes);

}  // namespace longstride
