// Names, examples and doc lines of every kind of term, as a table for use at run time.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "longstride/pattern/terms/term.h"

namespace longstride::terms {

struct Entry {
  TermKind kind;
  const char* name;
  std::span<const Number> numbers;
  std::span<const Line> lines;
  std::span<const char* const> examples;
  std::span<const Drawing> drawings;
};

// One entry for each kind, in the order of TermKind.
const std::vector<Entry>& table();

// The examples of all kinds: patterns of one term each, to test everything with.
std::vector<const char*> examples();

// "| `window:w` | `q - k < w` | the last `w` positions, its own included |" and so on: the rows of the table
// in docs/patterns.md.
std::vector<std::string> lines_of_docs();

}  // namespace longstride::terms
