#include "longstride/pattern/terms/table.h"

#include <fmt/format.h>

#include "longstride/pattern/terms/terms.h"

namespace longstride::terms {

namespace {

template <class... Kinds>
std::vector<Entry> entries_of(List<Kinds...>) {
  return {{Kinds::kind, Kinds::name, Kinds::numbers, Kinds::lines, Kinds::examples, Kinds::drawings}...};
}

}  // namespace

const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = entries_of(All{});
  return entries;
}

std::vector<const char*> examples() {
  std::vector<const char*> all;
  for (const Entry& entry : table()) all.insert(all.end(), entry.examples.begin(), entry.examples.end());
  return all;
}

std::vector<std::string> lines_of_docs() {
  std::vector<std::string> rows;
  for (const Entry& entry : table())
    for (const Line& line : entry.lines)
      rows.push_back(fmt::format("| `{}` | {} | {} |", line.written, line.allows, line.meaning));
  return rows;
}

}  // namespace longstride::terms
