// The options of a subcommand. The command line's parser passes numbers on as words, and parse_integer,
// parse_unsigned and parse_number of base/text.h read them all, so that they are written alike everywhere.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <CLI/App.hpp>

namespace longstride::cli {

// The values that an option accepts. Other values are a UsageError.
struct IntegerRange {
  int64_t least = 0;
  int64_t most = std::numeric_limits<int64_t>::max();
};
struct NumberRange {
  double least = 0;
  double most = std::numeric_limits<double>::max();
  bool least_excluded = false;
};

// An option that was added; how it appears in the help.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option& type_name(const std::string& name) { return option_->type_name(name), *this; }
  Option& shown_default(const std::string& text) { return option_->default_str(text), *this; }
  Option& required() { return option_->required(), *this; }
  // Given without the option `name`, as "--draw", it is a UsageError. That one has been added before.
  Option& needs(const std::string& name);

 private:
  CLI::Option* option_;
};

class Command {
 public:
  Command(CLI::App& app, const std::string& name, const std::string& help)
      : app_(*app.add_subcommand(name, help)) {}

  // If the option is not given, its target keeps its value. Lists are separated by commas.
  Option add(const std::string& names, int64_t& target, const IntegerRange& range, const std::string& help);
  Option add(const std::string& names, std::vector<int64_t>& target, const IntegerRange& range,
             const std::string& help);
  Option add(const std::string& names, uint64_t& target, const std::string& help);
  Option add(const std::string& names, double& target, const NumberRange& range, const std::string& help);
  Option add(const std::string& names, std::string& target, const std::string& help);
  Option add(const std::string& names, std::vector<std::string>& target, const std::string& help);
  // May be given once; `take` gets the value. An Error that it throws is one of the command line.
  Option add_checked(const std::string& names, const std::function<void(const std::string&)>& take,
                     const std::string& help);
  // The rest of the words on the command line, whatever is in them.
  Option add_words(const std::string& name, std::vector<std::string>& target, const std::string& help);
  Option add_choice(const std::string& names, std::string& target, const std::vector<std::string>& choices,
                    const std::string& help);
  // May be given several times; `take` gets each value.
  Option add_repeated(const std::string& names, const std::function<void(const std::string&)>& take,
                      const std::string& help);
  Option add_flag(const std::string& names, bool& target, const std::string& help);

  // The help does not show the command.
  void hide() { app_.group(""); }
  void footer(const std::string& text) { app_.footer(text); }
  void run(const std::function<void()>& action) { app_.callback(action); }
  // The names of the options on the command line.
  std::vector<std::string> given() const;

 private:
  CLI::App& app_;
};

}  // namespace longstride::cli
