// Standard output for results, standard error for messages (base/say.h), and what becomes of them if nobody
// reads or the disk is full.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json_fwd.hpp>

namespace longstride::cli {

// To be called first in main: gives the standard streams that the caller closed to /dev/null, so that no file
// of ours takes their place (using them still fails), and lets writing to a closed pipe or beyond the file
// size limit be an error instead of the process's end.
void prepare_standard_streams();

// Who read standard output has seen enough. No error: the command ends without a word.
class OutputClosed : public std::exception {};

// Bytes to standard output. Throws Error, or OutputClosed.
void write_result(std::string_view bytes);
// Text to standard output, made printable. Throws as write_result.
void print_text(std::string_view text);
template <class... Args>
void print_result(fmt::format_string<Args...> format, Args&&... args) {
  print_text(fmt::format(format, std::forward<Args>(args)...));
}
// As an indented document; bytes that are no UTF-8 become U+FFFD.
void print_json(const nlohmann::json& document);
// Brings what was printed to where it goes. Throws as write_result; to be called before success is reported.
void flush_results();

// From here on results go to standard error, because standard output gets the file itself.
void print_results_on_standard_error();

}  // namespace longstride::cli
