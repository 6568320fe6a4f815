#include "cli/standard_streams.h"

#include <cerrno>
#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"

namespace longstride::cli {

namespace {

bool results_on_standard_error = false;

[[noreturn]] void refuse() {
  if (errno == EPIPE) throw PipeClosed("standard output is closed");
  fail("cannot write to standard output: {}", last_system_error());
}

}  // namespace

void prepare_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one. It is opened in the wrong direction, so that its use is an error.
    const int opened = open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened >= 0 && opened != descriptor) dup2(opened, descriptor), close(opened);
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void write_result(std::string_view bytes) {
  if (bytes.empty()) return;  // its pointer may be null, which fwrite does not allow
  if (results_on_standard_error) return write_to_standard_error(bytes);
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size()) refuse();
}

void print_text(std::string_view text) { write_result(printable(text)); }

void print_json(const nlohmann::json& document) {
  if (log_format() == LogFormat::json) {
    nlohmann::json event = document;
    if (event.is_object()) event["event"] = "result";
    return write_result(event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  write_result(document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void say_event(const nlohmann::ordered_json& event) {
  write_to_standard_error(event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void flush_results() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) refuse();
}

void print_results_on_standard_error() { results_on_standard_error = true; }

}  // namespace longstride::cli
