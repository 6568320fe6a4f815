#include "cli/command_line.h"

#include <cmath>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/text.h"

namespace longstride::cli {

namespace {

// "--count" of "-n,--count".
std::string long_name(const std::string& names) { return split(names, ',').back(); }

// Runs `read`. An error in a value is an error in the command line.
template <class Read>
auto read_value(Read&& read) {
  try {
    return read();
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
}

int64_t read_integer(const std::string& text, const std::string& name, const IntegerRange& range) {
  const int64_t value = read_value([&] { return parse_integer(text, name); });
  if (value >= range.least && value <= range.most) return value;
  if (range.most == std::numeric_limits<int64_t>::max())
    throw UsageError(fmt::format("{} {}: must be at least {}", name, text, range.least));
  throw UsageError(fmt::format("{} {}: must lie between {} and {}", name, text, range.least, range.most));
}

double read_number(const std::string& text, const std::string& name, const NumberRange& range) {
  const double value = read_value([&] { return parse_number(text, name); });
  const bool large_enough = range.least_excluded ? value > range.least : value >= range.least;
  if (std::isfinite(value) && large_enough && value <= range.most) return value;
  const std::string least =
      fmt::format("{} {}", range.least_excluded ? "more than" : "at least", range.least);
  if (range.most == std::numeric_limits<double>::max())
    throw UsageError(fmt::format("{} {}: must be a number of {}", name, text, least));
  throw UsageError(fmt::format("{} {}: must be {} and at most {}", name, text, least, range.most));
}

// Most often a shell's variable that is not set. Taken for "not given", it would be passed over.
std::string refuse_empty(const std::string& value) { return value.empty() ? "the value is empty" : ""; }

}  // namespace

Option& Option::needs(const std::string& name) { return option_->needs(name), *this; }

Option Command::add(const std::string& names, int64_t& target, const IntegerRange& range,
                    const std::string& help) {
  const auto take = [&target, range, name = long_name(names)](const std::string& text) {
    target = read_integer(text, name, range);
  };
  return Option(app_.add_option_function<std::string>(names, take, help)->type_name("N"));
}

Option Command::add(const std::string& names, std::vector<int64_t>& target, const IntegerRange& range,
                    const std::string& help) {
  const auto take = [&target, range, name = long_name(names)](const std::vector<std::string>& texts) {
    target.clear();
    for (const std::string& text : texts)
      for (const std::string& part : split(text, ',')) target.push_back(read_integer(part, name, range));
  };
  return Option(app_.add_option_function<std::vector<std::string>>(names, take, help)->type_name("N[,N...]"));
}

Option Command::add(const std::string& names, uint64_t& target, const std::string& help) {
  const auto take = [&target, name = long_name(names)](const std::string& text) {
    target = read_value([&] { return parse_unsigned(text, name); });
  };
  return Option(app_.add_option_function<std::string>(names, take, help)->type_name("N"));
}

Option Command::add(const std::string& names, double& target, const NumberRange& range,
                    const std::string& help) {
  const auto take = [&target, range, name = long_name(names)](const std::string& text) {
    target = read_number(text, name, range);
  };
  return Option(app_.add_option_function<std::string>(names, take, help)->type_name("NUMBER"));
}

Option Command::add(const std::string& names, std::string& target, const std::string& help) {
  return Option(app_.add_option(names, target, help)->check(refuse_empty));
}

Option Command::add(const std::string& names, std::vector<std::string>& target, const std::string& help) {
  return Option(app_.add_option(names, target, help)->delimiter(','));
}

Option Command::add_checked(const std::string& names, const std::function<void(const std::string&)>& take,
                            const std::string& help) {
  const auto take_checked = [take](const std::string& text) { read_value([&] { return take(text), true; }); };
  return Option(app_.add_option_function<std::string>(names, take_checked, help));
}

Option Command::add_words(const std::string& name, std::vector<std::string>& target,
                          const std::string& help) {
  return Option(app_.add_option(name, target, help)->check(refuse_empty));
}

Option Command::add_choice(const std::string& names, std::string& target,
                           const std::vector<std::string>& choices, const std::string& help) {
  return Option(app_.add_option(names, target, help)->check(CLI::IsMember(choices))->capture_default_str());
}

Option Command::add_repeated(const std::string& names, const std::function<void(const std::string&)>& take,
                             const std::string& help) {
  const auto take_all = [take](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) take(text);
  };
  return Option(
      app_.add_option_function<std::vector<std::string>>(names, take_all, help)->allow_extra_args(false));
}

Option Command::add_flag(const std::string& names, bool& target, const std::string& help) {
  return Option(app_.add_flag(names, target, help));
}

std::vector<std::string> Command::given() const {
  std::vector<std::string> names;
  for (const CLI::Option* option : app_.get_options())
    if (option->count() > 0) names.push_back(option->get_name());
  return names;
}

}  // namespace longstride::cli
