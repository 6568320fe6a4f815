// Standard output for results, standard error for messages (base/say.h), and what happens if nobody reads
// them or the disk is full.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json_fwd.hpp>

namespace longstride::cli {

// Call this first in main. It connects standard streams that the caller closed to /dev/null, so that no file
// of ours takes their place (using them still fails). It makes writing to a closed pipe or beyond the file
// size limit an error instead of the process's end.
void prepare_standard_streams();

// Writes bytes to standard output. Throws Error, and PipeClosed if its reader has closed it.
void write_result(std::string_view bytes);
// Writes text to standard output, made printable. Throws as write_result.
void print_text(std::string_view text);
template <class... Args>
void print_result(fmt::format_string<Args...> format, Args&&... args) {
  print_text(fmt::format(format, std::forward<Args>(args)...));
}
// Prints an indented document, or where messages are JSON (base/say.h) one line with "event": "result"; bytes
// that are not UTF-8 become U+FFFD.
void print_json(const nlohmann::json& document);
// Writes an object with an "event" as one line to standard error.
void say_event(const nlohmann::ordered_json& event);
// Flushes what was printed. Throws as write_result. Call it before success is reported.
void flush_results();

// From here on results go to standard error, because standard output gets the output file.
void print_results_on_standard_error();

}  // namespace longstride::cli
