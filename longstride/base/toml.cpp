#include "longstride/base/toml.h"

#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <fmt/ranges.h>
#include <toml++/toml.h>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"

namespace longstride {

namespace {

// 0.1 stays "0.1" and 1 becomes "1.0": TOML tells integers from floats by the point.
std::string number_as_toml(double value) {
  std::string text = fmt::format("{}", value);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (c == '\n')
      result += "\\n";
    else if (code < 0x20 || code == 0x7f)
      result += fmt::format("\\u{:04X}", code);
    else
      result += c;
  }
  return result + "\"";
}

// Refuses text that would make the parser recurse deeper than its stack: names with very many dots, as in
// a.a.a.a = 1. Dots in strings and comments do not count.
void check_depth(std::string_view text, const std::string& source) {
  constexpr int kMostDots = 16;
  int64_t line = 1;
  int dots = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"' || c == '\'') {
      const std::string_view rest = text.substr(at);
      const std::string_view quote = rest.substr(0, rest.substr(0, 3) == std::string(3, c) ? 3 : 1);
      for (at += quote.size(); at < text.size() && !text.substr(at).starts_with(quote); ++at) {
        if (text[at] == '\n') ++line;
        if (text[at] == '\n' && quote.size() == 1) break;
        if (text[at] == '\\' && c == '"') ++at;
      }
      at += at < text.size() && text[at] == c ? quote.size() - 1 : 0;
    } else if (c == '#') {
      while (at + 1 < text.size() && text[at + 1] != '\n') ++at;
    } else if (c == '.') {
      LONGSTRIDE_CHECK(++dots <= kMostDots, "{}:{}: a name of more than {} parts", source, line, kMostDots);
    } else if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-' && c != ' ' &&
               c != '\t') {
      dots = 0;
      if (c == '\n') ++line;
    }
  }
}

// Reads the value of --set for a field of numbers, in the way of other numbers on the command line. False if
// it is no such value.
bool assign_numbers(const Field& field, std::string_view value) {
  std::vector<std::string> parts{std::string(value)};
  const bool list = value.starts_with('[') && value.ends_with(']');
  if (list) parts = split(value.substr(1, value.size() - 2), ',');
  if (parts.size() > 1 && trim(parts.back()).empty()) parts.pop_back();  // [1, 2,]
  try {
    if (auto* target = std::get_if<int64_t*>(&field.target); target && !list)
      return **target = parse_integer(value, field.key()), true;
    if (auto* target = std::get_if<double*>(&field.target); target && !list)
      return **target = parse_number(value, field.key()), true;
    const auto read_into = [&](auto& values, auto parse) {
      values.clear();
      for (const std::string& part : parts) values.push_back(parse(part, field.key()));
      return true;
    };
    if (auto* target = std::get_if<std::vector<int64_t>*>(&field.target); target && list)
      return read_into(**target, parse_integer);
    if (auto* target = std::get_if<std::vector<double>*>(&field.target); target && list)
      return read_into(**target, parse_number);
  } catch (const Error&) {  // the parser of TOML has the last word, as for 0x10 and the empty list
  }
  return false;
}

// Writes a TOML value into the field; false if the type does not fit.
bool assign(const Field& field, const toml::node& node) {
  if (auto* target = std::get_if<int64_t*>(&field.target)) {
    if (auto value = node.value_exact<int64_t>()) return **target = *value, true;
  } else if (auto* target = std::get_if<double*>(&field.target)) {
    if (auto value = node.value<double>(); value && node.is_number()) return **target = *value, true;
  } else if (auto* target = std::get_if<bool*>(&field.target)) {
    if (auto value = node.value_exact<bool>()) return **target = *value, true;
  } else if (auto* target = std::get_if<std::string*>(&field.target)) {
    if (auto value = node.value_exact<std::string>()) return **target = *value, true;
  } else if (auto* target = std::get_if<TextValue*>(&field.target)) {
    if (auto value = node.value_exact<std::string>()) return (*target)->set_text(*value), true;
  } else if (const toml::array* array = node.as_array()) {
    std::vector<int64_t> integers;
    std::vector<double> numbers;
    const bool want_integers = std::holds_alternative<std::vector<int64_t>*>(field.target);
    for (const toml::node& element : *array) {
      if (!element.is_number() || (want_integers && !element.is_integer())) return false;
      if (want_integers)
        integers.push_back(*element.value_exact<int64_t>());
      else
        numbers.push_back(*element.value<double>());
    }
    if (want_integers)
      *std::get<std::vector<int64_t>*>(field.target) = std::move(integers);
    else
      *std::get<std::vector<double>*>(field.target) = std::move(numbers);
    return true;
  }
  return false;
}

void check_value(const Field& field, const std::string& where) {
  try {
    field.check();
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
}

void assign_checked(const FieldList& fields, const std::string& key, const toml::node& node,
                    const std::string& where) {
  const Field& field = fields.find(key, where);
  LONGSTRIDE_CHECK(assign(field, node), "{}: {} must be {}", where, key, field.type_name());
  check_value(field, where);
}

}  // namespace

std::string Field::type_name() const {
  constexpr const char* names[] = {"an integer",         "a number",           "true or false",
                                   "a string in quotes", "a string in quotes", "a list of integers",
                                   "a list of numbers"};
  return names[target.index()];
}

std::string Field::value_as_toml() const {
  return std::visit(
      [](const auto* value) -> std::string {
        using T = std::decay_t<decltype(*value)>;
        if constexpr (std::is_same_v<T, bool>)
          return *value ? "true" : "false";
        else if constexpr (std::is_same_v<T, int64_t>)
          return fmt::format("{}", *value);
        else if constexpr (std::is_same_v<T, double>)
          return number_as_toml(*value);
        else if constexpr (std::is_same_v<T, std::string>)
          return quoted(*value);
        else if constexpr (std::is_same_v<T, TextValue>)
          return quoted(value->text());
        else if constexpr (std::is_same_v<T, std::vector<int64_t>>)
          return fmt::format("[{}]", fmt::join(*value, ", "));
        else {
          std::vector<std::string> texts;
          for (double number : *value) texts.push_back(number_as_toml(number));
          return fmt::format("[{}]", fmt::join(texts, ", "));
        }
      },
      target);
}

void Field::check() const {
  const auto check_number = [this](double value) {
    LONGSTRIDE_CHECK(std::isfinite(value), "{} = {}, must be a finite number", key(), value);
    if (value >= minimum && value <= maximum) return;
    if (std::isinf(maximum)) fail("{} = {}, must be at least {}", key(), value, minimum);
    if (std::isinf(minimum)) fail("{} = {}, must be at most {}", key(), value, maximum);
    fail("{} = {}, must lie between {} and {}", key(), value, minimum, maximum);
  };
  std::visit(
      [&](const auto* value) {
        using T = std::decay_t<decltype(*value)>;
        if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
          check_number(static_cast<double>(*value));
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                             std::is_same_v<T, std::vector<double>>) {
          for (auto element : *value) check_number(static_cast<double>(element));
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (choices.empty()) return;
          for (const std::string& choice : choices)
            if (*value == choice) return;
          fail("{} = \"{}\", must be one of: {}", key(), *value, fmt::join(choices, ", "));
        }
      },
      target);
}

const Field& FieldList::find(const std::string& key, const std::string& where) const {
  std::vector<std::string> known;
  for (const Field& field : fields_) {
    if (field.key() == key) return field;
    known.push_back(field.key());
  }
  std::string near = nearest(key, known);
  if (near.empty()) fail("{}: unknown key {}; 'longstride train --help' lists them", where, key);
  fail("{}: unknown key {}; did you mean {}?", where, key, near);
}

std::vector<std::string> read_toml_text(const std::string& text, const std::string& source,
                                        const FieldList& fields) {
  constexpr size_t kLongest = size_t{1} << 20;
  LONGSTRIDE_CHECK(text.size() <= kLongest, "{} has {} bytes; a config has at most {}", source, text.size(),
                   kLongest);
  check_depth(text, source);
  toml::table root;
  try {
    root = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    fail("{}:{}: {}", source, error.source().begin.line, error.description());
  }
  std::vector<std::string> named;
  for (const auto& [name, node] : root) {
    const auto where = [&](const toml::node& at) {
      return fmt::format("{}:{}", source, at.source().begin.line);
    };
    const std::string section(name.str());
    if (const toml::table* table = node.as_table()) {
      for (const auto& [key, value] : *table) {
        named.push_back(section + "." + std::string(key.str()));
        assign_checked(fields, named.back(), value, where(value));
      }
    } else {
      named.push_back(section);
      assign_checked(fields, section, node, where(node));
    }
  }
  return named;
}

std::vector<std::string> read_toml_file(const std::string& path, const FieldList& fields) {
  // Opening a named pipe would wait until somebody writes into it. A pipe that a shell hands over is named
  // by a link.
  std::error_code ignored;
  LONGSTRIDE_CHECK(!std::filesystem::is_fifo(std::filesystem::symlink_status(path, ignored)),
                   "cannot read {}: it is not a regular file", path);
  std::ifstream file(path);
  LONGSTRIDE_CHECK(file.good(), "cannot read {}: {}", path, last_system_error());
  // A device may never end.
  constexpr std::streamsize kMostRead = (std::streamsize{1} << 20) + 1;
  std::string text(static_cast<size_t>(kMostRead), '\0');
  file.read(text.data(), kMostRead);
  text.resize(static_cast<size_t>(file.gcount()));
  LONGSTRIDE_CHECK(!file.bad(), "cannot read {}: {} (is it a file?)", path, last_system_error());
  return read_toml_text(text, path, fields);
}

std::string apply_override(const std::string& assignment, const FieldList& fields,
                           const std::string& option) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos)
    throw UsageError(
        fmt::format("{0} {1}: expected section.key=value, as in {0} train.steps=100", option, assignment));
  const std::string key(trim(std::string_view(assignment).substr(0, equals)));
  const std::string value(trim(std::string_view(assignment).substr(equals + 1)));
  const std::string where = option + " " + assignment;
  try {
    const Field& field = fields.find(key, where);
    if (assign_numbers(field, value)) return check_value(field, where), key;
    const bool is_text = std::holds_alternative<std::string*>(field.target) ||
                         std::holds_alternative<TextValue*>(field.target);
    const bool bare_string = is_text && !value.starts_with('"');
    LONGSTRIDE_CHECK(
        is_utf8(value),
        "{}: '{}' is not UTF-8, as a config has to be; rename it, or go through a link with another name",
        where, value);
    check_depth(bare_string ? "" : value, where);
    const toml::table table = toml::parse("value = " + (bare_string ? quoted(value) : value));
    assign_checked(fields, key, *table.get("value"), where);
    return key;
  } catch (const toml::parse_error&) {
    throw UsageError(fmt::format("{}: {} must be {}", where, key, fields.find(key, where).type_name()));
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
}

std::string to_toml(const FieldList& fields, bool with_help) {
  std::string result, section;
  for (const Field& field : fields.all()) {
    if (field.section != section) {
      section = field.section;
      result += fmt::format("{}[{}]\n", result.empty() ? "" : "\n", section);
    }
    if (with_help) result += fmt::format("# {}\n", field.help);
    result += fmt::format("{} = {}\n", field.name, field.value_as_toml());
  }
  return result;
}

}  // namespace longstride
