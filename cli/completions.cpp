// The completions of three shells. Each is a script that the shell reads from a folder of its own.
#include <fmt/format.h>

#include "cli/shell_files.h"
#include "cli/shell_options.h"

namespace longstride::cli {

namespace {

std::string joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

// In single quotes for a shell, in which `quote` stands for one.
std::string quoted(std::string_view text, std::string_view quote) {
  std::string result = "'";
  for (const char c : text) c == '\'' ? result += quote : result += c;
  return result + "'";
}

std::vector<std::string> names_of(const std::vector<ShellOption>& options) {
  std::vector<std::string> names;
  for (const ShellOption& option : options)
    if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::vector<std::string> names_of(const std::vector<ShellCommand>& commands) {
  std::vector<std::string> names;
  for (const ShellCommand& command : commands) names.push_back(command.name);
  return names;
}

// ---- bash ----

// The cases of a command's options that take a value.
std::string bash_values(const ShellCommand& command, const std::vector<std::string>& settings) {
  std::string text;
  for (const ShellOption& option : command.options) {
    if (option.positional || option.value.empty()) continue;
    std::string patterns;
    for (const std::string& name : option.names)
      patterns += fmt::format("{}'{} {}'", patterns.empty() ? "" : "|", command.name, name);
    if (option.name() == "--set")
      text +=
          fmt::format("    {}) words='{}'; compopt -o nospace 2>/dev/null ;;\n", patterns, joined(settings));
    else if (!option.choices.empty())
      text += fmt::format("    {}) words='{}' ;;\n", patterns, joined(option.choices));
    else if (option.files)
      text += fmt::format("    {}) return ;;\n", patterns);
    else
      text += fmt::format("    {}) compopt +o default 2>/dev/null; return ;;\n", patterns);
  }
  return text;
}

std::string bash(const CLI::App& app, const std::vector<std::string>& settings) {
  const std::vector<ShellCommand> commands = describe_commands(app);
  std::string values, options;
  for (const ShellCommand& command : commands) {
    values += bash_values(command, settings);
    options += fmt::format("      {}) words='{}' ;;\n", command.name, joined(names_of(command.options)));
  }
  return fmt::format(
      R"(# bash completion of longstride. Where it offers nothing, bash completes the names of files.
_longstride() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    case $current in
      -*) words='{}' ;;
      *) words='{}' ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}} $previous" in
{}    *)
      case $current in -*) ;; *) return ;; esac
      case ${{COMP_WORDS[1]}} in
{}      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _longstride longstride
)",
      joined(names_of(describe_options(app))), joined(names_of(commands)), values, options);
}

// ---- zsh ----

// Within the square brackets or between the colons of a specification.
std::string zsh_escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

std::string zsh_action(const ShellOption& option, const std::vector<std::string>& settings) {
  if (option.name() == "--set")
    return fmt::format("{}:compadd -S \"\" -- {}", zsh_escaped(option.value), joined(settings));
  const std::string value = zsh_escaped(option.value.empty() ? option.name() : option.value);
  if (!option.choices.empty()) return fmt::format("{}:({})", value, joined(option.choices));
  return fmt::format("{}:{}", value, option.files ? "_files" : " ");
}

// A line for each name of an option.
std::string zsh_specifications(const std::vector<ShellOption>& options,
                               const std::vector<std::string>& settings) {
  constexpr const char* kQuote = "'\\''";
  std::string text;
  int position = 0;
  for (const ShellOption& option : options) {
    if (option.positional) {
      text += fmt::format(" \\\n        {}",
                          quoted(fmt::format("{}:{}", ++position, zsh_action(option, settings)), kQuote));
      continue;
    }
    const std::string others = option.names.size() > 1 ? fmt::format("({})", joined(option.names)) : "*";
    for (const std::string& name : option.names) {
      std::string specification = fmt::format("{}{}[{}]", others, name, zsh_escaped(option.help));
      if (!option.value.empty()) specification += fmt::format(":{}", zsh_action(option, settings));
      text += fmt::format(" \\\n        {}", quoted(specification, kQuote));
    }
  }
  return text;
}

std::string zsh(const CLI::App& app, const std::vector<std::string>& settings) {
  std::string names, cases;
  for (const ShellCommand& command : describe_commands(app)) {
    names += "\n    " + quoted(fmt::format("{}:{}", command.name, command.help), "'\\''");
    cases += fmt::format("      {})\n      _arguments{} ;;\n", command.name,
                         zsh_specifications(command.options, settings));
  }
  return fmt::format(
      R"(#compdef longstride
# zsh completion of longstride
_longstride() {{
  local curcontext="$curcontext" state line
  local -a commands=({}
  )
  _arguments -C{} \
        '1: :->command' '*:: :->argument'
  case $state in
    command) _describe command commands ;;
    argument)
    case $words[1] in
{}    esac ;;
  esac
}}
_longstride "$@"
)",
      names, zsh_specifications(describe_options(app), settings), cases);
}

// ---- fish ----

std::string fish_option(const std::string& condition, const ShellOption& option,
                        const std::vector<std::string>& settings) {
  std::string line = "complete -c longstride -n " + quoted(condition, "\\'");
  for (const std::string& name : option.names)
    line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (option.name() == "--set")
    line += " -x -a " + quoted(joined(settings), "\\'");
  else if (!option.choices.empty())
    line += " -x -a " + quoted(joined(option.choices), "\\'");
  else if (!option.value.empty())
    line += option.files ? " -r -F" : " -x";
  return line + " -d " + quoted(option.help, "\\'") + "\n";
}

std::string fish(const CLI::App& app, const std::vector<std::string>& settings) {
  constexpr const char* kNoCommand = "__fish_use_subcommand";
  std::string text = "# fish completion of longstride\n";
  for (const ShellOption& option : describe_options(app)) text += fish_option(kNoCommand, option, settings);
  for (const ShellCommand& command : describe_commands(app)) {
    text += fmt::format("complete -c longstride -n {} -f -a {} -d {}\n", kNoCommand, command.name,
                        quoted(command.help, "\\'"));
    for (const ShellOption& option : command.options)
      if (!option.positional)
        text += fish_option("__fish_seen_subcommand_from " + command.name, option, settings);
  }
  return text;
}

}  // namespace

std::string completions(const CLI::App& app, std::string_view shell,
                        const std::vector<std::string>& settings) {
  return shell == "bash" ? bash(app, settings) : shell == "zsh" ? zsh(app, settings) : fish(app, settings);
}

}  // namespace longstride::cli
