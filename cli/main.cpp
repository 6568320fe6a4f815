// The longstride binary: reads the command line, runs one subcommand, and turns every error into one line.
// Exit codes: 0 done; 1 an error in files, data or training; 2 a command line that cannot be understood; 128
// + the signal's number after an interruption.
#include <algorithm>
#include <csignal>
#include <exception>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/say.h"
#include "longstride/base/signals.h"
#include "longstride/base/text.h"

#include "cli/data_notes.h"
#include "cli/standard_streams.h"
#include "cli/subcommands.h"

namespace longstride::cli {
namespace {

// CLI11 would only say that a subcommand is missing.
void check_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), argv[1]) != known.end()) return;
  std::string near = nearest(argv[1], known);
  for (const std::string option : {"--version", "--help"})
    if (option.substr(2) == argv[1]) near = option;
  throw UsageError(fmt::format("there is no command '{}'{} (see 'longstride --help')", argv[1],
                               near.empty() ? "" : "; did you mean '" + near + "'?"));
}

int run(int argc, char** argv) {
  CLI::App app("Sparse Transformers over long byte sequences: train, evaluate, sample and compress.",
               "longstride");
  app.set_version_flag("--version", std::string("longstride ") + LONGSTRIDE_VERSION);
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of all commands");
  app.footer(
      "Example:\n  longstride train configs/fortunes.toml\n  longstride sample runs/fortunes\n\n"
      "longstride COMMAND --help says more, with an example.");
  Subcommands subcommands;
  subcommands.add_to(app, argv);
  check_command(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help, --version
      std::ostringstream text;
      app.exit(error, text, text);
      return print_text(text.str()), 0;
    }
    throw UsageError(
        fmt::format("{} (see 'longstride {}--help')", error.what(),
                    app.get_subcommands().empty() ? "" : app.get_subcommands()[0]->get_name() + " "));
  }
  return subcommands.result();
}

// So that also a command line that cannot be understood is refused in the format that it asks for.
void choose_log_format(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--log-format=json" ||
        (word == "--log-format" && i + 1 < argc && std::string_view(argv[i + 1]) == "json"))
      set_log_format(LogFormat::json);
  }
}

int complain(int code, const char* what) {
  if (log_format() == LogFormat::json)
    say_event({{"event", "error"}, {"text", what}, {"code", code}});
  else
    say("longstride: {}", what);
  return code;
}

}  // namespace
}  // namespace longstride::cli

int main(int argc, char** argv) {
  using namespace longstride::cli;
  constexpr int kPipeClosed = 128 + SIGPIPE;  // what a shell reports for a process that this signal ended
  prepare_standard_streams();
  choose_log_format(argc, argv);
  try {
    longstride::leave_signals_to_signal_thread();
    tell_about_data();
    const int result = run(argc, argv);
    flush_results();
    return result;
  } catch (const longstride::PipeClosed&) {
    return kPipeClosed;
  } catch (const longstride::UsageError& error) {
    return complain(2, error.what());
  } catch (const std::bad_alloc&) {
    return complain(
        1, "not enough memory; a smaller train.micro_batch, or train.activations=recompute, needs less");
  } catch (const std::exception& error) {
    return complain(1, error.what());
  }
}
