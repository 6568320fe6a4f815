// Field lists from and to TOML, and `--set section.key=value`.
#pragma once

#include <string>
#include <vector>

#include "longstride/base/fields.h"

namespace longstride {

// Reads `path` into the listed fields. Fields that the file does not name keep their values. Returns the
// keys that it names. Throws Error with file, line and field for syntax errors, unknown keys (naming the
// nearest known key), wrong types, and values out of range.
std::vector<std::string> read_toml_file(const std::string& path, const FieldList& fields);
// The same from text; `source` stands for the file name in messages.
std::vector<std::string> read_toml_text(const std::string& text, const std::string& source,
                                        const FieldList& fields);

// Applies one "section.key=value"; a string value needs no quotes. Returns the key. Throws UsageError, which
// names `option`.
std::string apply_override(const std::string& assignment, const FieldList& fields,
                           const std::string& option = "--set");

// All fields as TOML, a comment with each field's help above it if `with_help`.
std::string to_toml(const FieldList& fields, bool with_help);

}  // namespace longstride
