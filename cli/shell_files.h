// What a shell and `man` know of the program, from the very options that it parses.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <CLI/App.hpp>

namespace longstride::cli {

// A script that completes commands, options and their values; `shell` is bash, zsh or fish. `settings` are the keys
// that --set takes.
std::string completions(const CLI::App& app, std::string_view shell,
                        const std::vector<std::string>& settings);

// The manual page, as roff. `fields` is the text about the fields of a config; the help of a command that ends with
// it leaves it to a section of its own.
std::string manual_page(const CLI::App& app, std::string_view fields);

}  // namespace longstride::cli
