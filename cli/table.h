// Tables for people.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace longstride::cli {

// Prints rows of as many cells, the first of them the heading, to standard output. The first `left` columns stand to
// the left, the others to the right.
void print_table(const std::vector<std::vector<std::string>>& rows, size_t left);

}  // namespace longstride::cli
