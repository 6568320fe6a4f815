// The commands and options of the program as plain values, for what is generated from them.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <CLI/App.hpp>

#include "longstride/base/text.h"

namespace longstride::cli {

struct ShellOption {
  std::vector<std::string> names;    // "-n", "--count"; of a positional its name alone
  std::string value;                 // what stands for its value in the help; empty for a flag
  std::vector<std::string> choices;  // the values that there are; empty: any
  std::string help;
  bool positional = false;
  bool required = false;
  bool files = false;  // its value names a file or a folder

  const std::string& name() const { return names.back(); }
};

struct ShellCommand {
  std::string name, help, footer;
  std::vector<ShellOption> options;
};

// Whether the help shows it.
inline bool is_shown(const CLI::App& command) { return !command.get_group().empty(); }

inline ShellOption describe_option(const CLI::Option& option) {
  ShellOption described;
  for (const std::string& name : option.get_snames()) described.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) described.names.push_back("--" + name);
  described.positional = described.names.empty();
  if (described.positional) described.names.push_back(option.get_name());
  described.help = option.get_description();
  described.required = option.get_required();
  if (option.get_type_size() == 0) return described;
  // "TEXT:{auto,int8}" is a choice.
  const std::string type = option.get_type_name();
  const size_t brace = type.find(":{");
  described.value = type.substr(0, brace);
  if (brace != std::string::npos)
    described.choices = split(type.substr(brace + 2, type.find('}') - brace - 2), ',');
  for (const char* kind : {"FILE", "DIR", "RUN", "CONFIG"})
    if (described.value.find(kind) != std::string::npos) described.files = true;
  return described;
}

inline std::vector<ShellOption> describe_options(const CLI::App& command) {
  std::vector<ShellOption> options;
  for (const CLI::Option* option : command.get_options()) options.push_back(describe_option(*option));
  return options;
}

// The commands that the help shows, in its order.
inline std::vector<ShellCommand> describe_commands(const CLI::App& app) {
  std::vector<ShellCommand> commands;
  for (const CLI::App* command : app.get_subcommands({}))
    if (is_shown(*command))
      commands.push_back({command->get_name(), command->get_description(), command->get_footer(),
                          describe_options(*command)});
  return commands;
}

}  // namespace longstride::cli
