// The manual page of the program, in the macros of man(7).
#include <fmt/format.h>

#include "cli/shell_files.h"
#include "cli/shell_options.h"

namespace longstride::cli {

namespace {

// Text as roff prints it: backslashes and hyphens as they are, and no line that is taken for a macro.
std::string escaped(std::string_view text) {
  std::string result;
  bool begins_line = true;
  for (const char c : text) {
    if (begins_line && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
    begins_line = c == '\n';
  }
  return result;
}

std::string as_it_stands(std::string_view text) {
  return text.empty() ? "" : fmt::format(".nf\n{}\n.fi\n", escaped(text));
}

std::string option_text(const ShellOption& option) {
  std::string head;
  for (const std::string& name : option.names)
    head += fmt::format("{}\\fB{}\\fR", head.empty() ? "" : ", ", escaped(name));
  if (!option.value.empty()) head += fmt::format(" \\fI{}\\fR", escaped(option.value));
  std::string text = fmt::format(".TP\n{}\n{}", head, escaped(option.help));
  if (!option.choices.empty()) text += escaped(fmt::format("; one of {}", fmt::join(option.choices, ", ")));
  return text + "\n";
}

std::string command_text(const ShellCommand& command, std::string_view fields) {
  std::string synopsis = fmt::format("\\fBlongstride {}\\fR [\\fIoptions\\fR]", command.name), text;
  for (const ShellOption& option : command.options)
    if (option.positional) synopsis += fmt::format(" \\fI{}\\fR", escaped(option.name()));
  text = fmt::format(".SS {}\n{}\n.PP\n{}\n", command.name, synopsis, escaped(command.help));
  for (const ShellOption& option : command.options) text += option_text(option);
  const std::string_view footer = command.footer;
  return text + ".PP\n" + as_it_stands(trim(footer.substr(0, footer.find(fields))));
}

}  // namespace

std::string manual_page(const CLI::App& app, std::string_view fields) {
  std::string commands, own;
  for (const ShellCommand& command : describe_commands(app)) commands += command_text(command, fields);
  for (const ShellOption& option : describe_options(app)) own += option_text(option);
  const std::string version = app.version();
  return fmt::format(
      R"(.TH LONGSTRIDE 1 "" "{}"
.SH NAME
longstride \- Sparse Transformers over long byte sequences
.SH SYNOPSIS
\fBlongstride\fR \fIcommand\fR [\fIoptions\fR] \fIarguments\fR
.SH DESCRIPTION
{}
.SH OPTIONS
{}.SH COMMANDS
{}.SH CONFIGURATION
{}.SH EXIT STATUS
.TP
0
done
.TP
1
an error in files, data or training
.TP
2
a command line that cannot be understood
.TP
128 + n
ended by signal n; what was learnt or drawn until then is saved
.SH ENVIRONMENT
.TP
\fBLONGSTRIDE_INSTRUCTIONS\fR
the most that may be used of the CPU's instruction sets, as compute.instructions of a config
.TP
\fBOMP_NUM_THREADS\fR
threads of the CPU, where compute.threads is 0
.TP
\fBXDG_CACHE_HOME\fR
where decoded data are kept, unless data.cache says it
)",
      escaped(version), escaped(app.get_description()), own, commands, as_it_stands(trim(fields)));
}

}  // namespace longstride::cli
