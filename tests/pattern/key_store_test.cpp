// Compares key stores with Pattern::allows: the rows that are written are those that each position has to
// read.
#include "longstride/pattern/key_store.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "longstride/base/check.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

// The largest number of keys below some position that it or a later one may look at.
int64_t most_live_keys(const Pattern& pattern, int64_t n) {
  std::vector<int64_t> last(static_cast<size_t>(n), -1);  // position that looks at the key
  for (int64_t k = 0; k < n; ++k)
    for (int64_t q = k; q < n; ++q)
      if (pattern.allows(q, k)) last[k] = q;
  int64_t most = 0;
  for (int64_t p = 0; p < n; ++p) {
    int64_t live = 0;
    for (int64_t k = 0; k <= p; ++k) live += last[k] >= p;
    most = std::max(most, live);
  }
  return most;
}

// Fills the rows position by position, from `given` on, and reads at each. Returns the fault, or "".
std::string fault(const Pattern& pattern, int64_t n, int64_t given) {
  const KeyStore store = make_key_store(pattern, n);
  if (store.rows > n) return fmt::format("{} rows for {} positions", store.rows, n);
  std::vector<int64_t> key_in(static_cast<size_t>(store.rows), -1);
  const auto write = [&](int64_t k, int64_t known) {
    for_rows_of_key(store, k, known, [&](int32_t row) { key_in.at(static_cast<size_t>(row)) = k; });
  };
  // Given keys come in any order.
  for (int64_t k = given - 1; k >= 0; --k) write(k, given);
  for (int64_t q = given; q < n; ++q) {
    write(q, q + 1);
    const Reading reading = reading_of(store, q);
    std::multiset<int64_t> keys;
    int64_t candidates = 0;
    for (int t = 0; t < reading.term_count; ++t)
      for (int32_t j = 0; j < reading.terms[t].count; ++j, ++candidates) {
        const int32_t key = reading.terms[t].key_at(j), row = reading.terms[t].row_at(j);
        if (row < 0 || row >= store.rows) return fmt::format("position {} reads row {}", q, row);
        if (key_in[row] != key)
          return fmt::format("position {}: row {} holds {} instead of {}", q, row, key_in[row], key);
        if (!read_before(store, reading, t, key)) keys.insert(key);
      }
    if (candidates != reading.candidates) return fmt::format("{} candidates are not counted", candidates);
    std::multiset<int64_t> expected;
    for (int64_t k = 0; k <= q; ++k)
      if (pattern.allows(q, k)) expected.insert(k);
    if (keys != expected)
      return fmt::format("position {} reads {} of {} keys", q, keys.size(), expected.size());
  }
  return "";
}

TEST(KeyStore, GivesEachPositionItsKeys) {
  std::vector<const char*> patterns = terms::examples();
  patterns.insert(
      patterns.end(),
      {"strided:8", "fixed:8,2", "prefix:3+previous-row:1", "window:12+block:8+previous-row:8+prefix:4",
       "window:3+previous-row:9+summary:6,2+stride:5", "summary:8,2+summary:12,3,1+prefix:9+dilated:3,5",
       "prefix:20+window:3", "block:4+prefix:30+summary:5,1"});
  for (const char* text : patterns)
    for (const int64_t n : {1, 2, 5, 8, 9, 31, 64, 65})
      for (const int64_t given : {int64_t{0}, n / 3, n - 1})
        EXPECT_EQ(fault(parse_pattern(text), n, given), "")
            << text << " over " << n << ", " << given << " given";
}

TEST(KeyStore, GivesEachPositionItsKeysOfPairsOfAllKinds) {
  for (const char* one : terms::examples())
    for (const char* other : terms::examples())
      EXPECT_EQ(fault(parse_pattern(fmt::format("{}+{}", one, other)), 40, 0), "") << one << '+' << other;
}

TEST(KeyStore, GivesEachPositionItsKeysInAnyUnion) {
  rc::check("unions of three terms", [] {
    const char* const terms[] = {"window:{}",      "block:{}",  "stride:{}",       "summary:{},2",
                                 "summary:{},1,1", "prefix:{}", "previous-row:{}", "dilated:3,{}"};
    std::string text;
    for (int i = 0; i < 3; ++i) {
      const std::string term = terms[*rc::gen::inRange(0, 8)];
      text = fmt::format("{}{}{}", text, i > 0 ? "+" : "",
                         fmt::format(fmt::runtime(term), *rc::gen::inRange(2, 15)));
    }
    const int64_t n = *rc::gen::inRange(1, 60);
    const std::string wrong = fault(parse_pattern(text), n, *rc::gen::inRange<int64_t>(0, n));
    if (!wrong.empty()) RC_FAIL(text + ": " + wrong);
  });
}

// Keys that no later position may look at are not kept, except in rows that are left over at a sequence's
// end.
TEST(KeyStore, KeepsNoMoreThanLaterPositionsMayLookAt) {
  const struct {
    const char* pattern;
    int64_t slack;
  } cases[] = {{"window:7", 0},    {"block:8", 0},   {"summary:8,3", 0},      {"prefix:5", 0},
               {"dilated:4,3", 0}, {"dense", 0},     {"previous-row:8", 0},   {"stride:6", 6},
               {"fixed:8,2", 2},   {"strided:8", 8}, {"window:12+block:8", 0}};
  for (const auto& [text, slack] : cases) {
    const Pattern pattern = parse_pattern(text);
    const int64_t rows = make_key_store(pattern, 64).rows, needed = most_live_keys(pattern, 64);
    EXPECT_GE(rows, needed) << text;
    EXPECT_LE(rows, needed + slack) << text;
  }
}

TEST(KeyStore, RefusesLengthsThatItCannotCount) {
  EXPECT_THROW(make_key_store(parse_pattern("dense"), 0), Error);
  EXPECT_THROW(make_key_store(parse_pattern("dense"), int64_t{1} << 31), Error);
}

}  // namespace
}  // namespace longstride
