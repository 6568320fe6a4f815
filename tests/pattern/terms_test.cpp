// The properties of each kind of term; the docs must say the same.
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/pattern/pattern.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

TEST(Terms, ExamplesAreTermsOfTheirKind) {
  for (const terms::Entry& entry : terms::table())
    for (const char* text : entry.examples) {
      const Pattern pattern = parse_pattern(text);
      ASSERT_EQ(pattern.count, 1) << text;
      EXPECT_EQ(pattern.terms[0].kind, entry.kind) << text;
      EXPECT_EQ(to_string(pattern), text);
    }
}

TEST(Terms, HaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const terms::Entry& entry : terms::table()) EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
}

// The drawings test `allows`, so they have to show something.
TEST(Terms, DrawingsAreSquaresWithSomeKeysAndNotAll) {
  for (const terms::Entry& entry : terms::table())
    for (const terms::Drawing& drawing : entry.drawings) {
      const std::string rows = drawing.rows;
      const size_t side = rows.find(' ');
      EXPECT_EQ(rows.size(), side * side + side - 1) << drawing.pattern;
      EXPECT_THAT(rows, testing::HasSubstr("#")) << drawing.pattern;
      EXPECT_EQ(parse_pattern(drawing.pattern).terms[0].kind, entry.kind) << drawing.pattern;
    }
}

TEST(Terms, StandInTheTableOfTheDocs) {
  std::ifstream file(LONGSTRIDE_DOCS_FOLDER "/patterns.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::string rows;
  for (const std::string& line : terms::lines_of_docs()) rows += line + "\n";
  EXPECT_THAT(text, testing::HasSubstr("|---|---|---|\n" + rows + "\n"))
      << "docs/patterns.md must have the rows that stand in pattern/terms/";
}

}  // namespace
}  // namespace longstride
