// The list of fields of a configuration struct. A struct names each field once, in its `fields` method:
//
//   struct ModelConfig {
//     int64_t layers = 12;
//     void fields(FieldList& list) { list.add("layers", layers, "number of residual blocks").at_least(1); }
//   };
//
// TOML reading and writing, --set, help texts and checkpoint metadata all walk this list.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace longstride {

// A value that TOML writes as a string and the program holds as something else.
class TextValue {
 public:
  virtual ~TextValue() = default;
  virtual const std::string& text() const = 0;
  virtual void set_text(std::string text) = 0;
};

using FieldTarget = std::variant<int64_t*, double*, bool*, std::string*, TextValue*, std::vector<int64_t>*,
                                 std::vector<double>*>;

struct Field {
  std::string section;  // "model"
  std::string name;     // "layers"
  std::string help;
  FieldTarget target;
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices;  // for strings; empty = any

  Field& at_least(double value) { return minimum = value, *this; }
  Field& at_most(double value) { return maximum = value, *this; }
  Field& one_of(std::vector<std::string> values) { return choices = std::move(values), *this; }

  std::string key() const { return section.empty() ? name : section + "." + name; }
  std::string type_name() const;      // "integer", "list of numbers", ...
  std::string value_as_toml() const;  // as it would stand in a TOML file
  // Throws Error naming key() if the current value breaks minimum, maximum or choices.
  void check() const;
};

class FieldList {
 public:
  void section(std::string name) { section_ = std::move(name); }
  Field& add(std::string name, FieldTarget target, std::string help) {
    Field& field = fields_.emplace_back();
    field.section = section_;
    field.name = std::move(name);
    field.help = std::move(help);
    field.target = target;
    return field;
  }
  template <class T>
  Field& add(std::string name, T& target, std::string help) {
    return add(std::move(name), FieldTarget(&target), std::move(help));
  }
  const std::vector<Field>& all() const& { return fields_; }
  const std::vector<Field>& all() const&& = delete;  // the list of a temporary would dangle
  // The field with this key; throws Error naming the nearest known key otherwise. `where` opens the message.
  const Field& find(const std::string& key, const std::string& where) const;

 private:
  std::string section_;
  std::vector<Field> fields_;
};

}  // namespace longstride
