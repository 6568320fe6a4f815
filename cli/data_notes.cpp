#include "cli/data_notes.h"

#include <memory>
#include <string>

#include <fmt/format.h>

#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/data/corpus.h"

#include "cli/status_line.h"

namespace longstride::cli {

void tell_about_data(bool quiet) {
  DataObserver observer;
  const auto status = std::make_shared<StatusLine>("decoding");
  if (!quiet)
    observer.progress = [status](int64_t bytes) {
      if (bytes > 0)
        status->say(fmt::format("decoding data: {} so far", human_bytes(static_cast<double>(bytes))));
      else
        status->clear();
    };
  observer.note = [status](const std::string& line) {
    status->clear();
    say("note       {}", line);
  };
  set_data_observer(observer);
}

}  // namespace longstride::cli
