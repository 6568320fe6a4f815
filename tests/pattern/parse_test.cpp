#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "longstride/base/check.h"
#include "longstride/pattern/pattern.h"
#include "longstride/pattern/terms/table.h"
#include "longstride/pattern/written_schedule.h"

namespace longstride {
namespace {

using testing::HasSubstr;

Pattern pattern_of(std::initializer_list<Term> terms) {
  Pattern pattern;
  for (const Term& term : terms) pattern.add(term);
  return pattern;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}
std::string pattern_error(const char* text) {
  return message_of([&] { parse_pattern(text); });
}
std::string schedule_error(const char* text) {
  return message_of([&] { parse_schedule(text); });
}

TEST(ParsePattern, EachName) {
  EXPECT_EQ(parse_pattern("dense"), pattern_of({{TermKind::dense}}));
  EXPECT_EQ(parse_pattern("window:7"), pattern_of({{TermKind::window, 7}}));
  EXPECT_EQ(parse_pattern("block:7"), pattern_of({{TermKind::block, 7}}));
  EXPECT_EQ(parse_pattern("stride:7"), pattern_of({{TermKind::stride, 7}}));
  EXPECT_EQ(parse_pattern("summary:7,3"), pattern_of({{TermKind::summary, 7, 3, 0}}));
  EXPECT_EQ(parse_pattern("summary:7,3,1"), pattern_of({{TermKind::summary, 7, 3, 1}}));
  EXPECT_EQ(parse_pattern("spread-summary:7,3"), pattern_of({{TermKind::spread_summary, 7, 3}}));
  EXPECT_EQ(parse_pattern("prefix:7"), pattern_of({{TermKind::prefix, 7}}));
  EXPECT_EQ(parse_pattern("previous-row:7"), pattern_of({{TermKind::previous_row, 7}}));
  EXPECT_EQ(parse_pattern("dilated:3,7"), pattern_of({{TermKind::dilated, 7, 3}}));
}

TEST(ParsePattern, PresetsAndUnions) {
  EXPECT_EQ(to_string(parse_pattern("strided:128")), "window:128+stride:128");
  EXPECT_EQ(to_string(parse_pattern("fixed:128,32")), "block:128+summary:128,32");
  EXPECT_EQ(to_string(parse_pattern("spread-fixed:128,32")), "block:128+spread-summary:128,32");
  EXPECT_EQ(to_string(parse_pattern(" window : 4 +\tprefix:2 + window:4 ")), "window:4+prefix:2");
  EXPECT_EQ(to_string(parse_pattern("summary:8,2,0+summary:8,2")), "summary:8,2");
  EXPECT_EQ(to_string(parse_pattern("dense+block:3")), "dense+block:3");
  EXPECT_EQ(parse_pattern("stride:2147483647").terms[0].size, 2147483647);
}

TEST(ParsePattern, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(pattern_error("summary:128,200"),
            "pattern 'summary:128,200': summary:l,c needs 1 <= c <= l, here l = 128, c = 200");
  EXPECT_EQ(pattern_error("fixed:8,0"),
            "pattern 'fixed:8,0': fixed:l,c needs 1 <= c <= l, here l = 8, c = 0");
  EXPECT_EQ(pattern_error("block:8+stride:0"), "pattern 'block:8+stride:0': stride:0: l must be at least 1");
  EXPECT_EQ(pattern_error("window:-3"), "pattern 'window:-3': window:-3: w must be at least 1");
  EXPECT_EQ(pattern_error("dilated:3,0"), "pattern 'dilated:3,0': dilated:3,0: d must be at least 1");
  EXPECT_EQ(pattern_error("summary:128,32,4"),
            "pattern 'summary:128,32,4': summary:l,c,r needs 0 <= r < l/c, here l = 128, c = 32, so r is at "
            "most 3, not 4");
  EXPECT_THAT(pattern_error("summary:128,32,-1"), HasSubstr("so r is at most 3, not -1"));
  EXPECT_THAT(pattern_error("widnow:8"), HasSubstr("unknown name 'widnow', did you mean 'window'?"));
  EXPECT_THAT(pattern_error("zzzzzzzz:8"), HasSubstr("unknown name 'zzzzzzzz'; known are dense, window"));
  EXPECT_EQ(pattern_error("stride:99999999999999999999"),
            "pattern 'stride:99999999999999999999': stride's l = 99999999999999999999 is too large, at most "
            "2147483647 is "
            "possible");
  EXPECT_THAT(pattern_error("stride:2147483648"), HasSubstr("too large"));
  EXPECT_THAT(pattern_error(""), HasSubstr("pattern '' is empty; write a term such as window:256"));
  EXPECT_THAT(pattern_error("  "), HasSubstr("is empty"));
  EXPECT_THAT(pattern_error("dense:3"), HasSubstr("dense takes no numbers"));
  EXPECT_THAT(pattern_error("window"), HasSubstr("'window' has no numbers, it is written window:w"));
  EXPECT_THAT(pattern_error("summary:8"),
              HasSubstr("'summary' has only 1 number, it is written summary:l,c[,r]"));
  EXPECT_THAT(pattern_error("window:8,9"),
              HasSubstr("'window' has too many numbers, it is written window:w"));
  EXPECT_THAT(pattern_error("window:8k"), HasSubstr("window's w should be an integer, not '8k'"));
  EXPECT_THAT(pattern_error("window:8.5"), HasSubstr("not '8.5'"));
  EXPECT_THAT(pattern_error("window:"), HasSubstr("window's w is missing"));
  EXPECT_THAT(pattern_error("window:x"), HasSubstr("should be an integer, not 'x'"));
  EXPECT_THAT(pattern_error("window:-"), HasSubstr("should be an integer, not '-'"));
  EXPECT_THAT(pattern_error("window:8 9"), HasSubstr("'9' does not belong after 'window:8'"));
  EXPECT_THAT(pattern_error("window:8)"), HasSubstr("')' does not belong after 'window:8'"));
  EXPECT_THAT(pattern_error("window:8+"), HasSubstr("ends after 'window:8+' where a name should follow"));
  EXPECT_THAT(pattern_error("+window:8"), HasSubstr("a name should stand at the beginning, not '+window:8'"));
  EXPECT_THAT(pattern_error("128"), HasSubstr("a name should stand where '128' is"));
  EXPECT_THAT(pattern_error("window:8|dense"), HasSubstr("one pattern is wanted here"));
  EXPECT_THAT(pattern_error("window:8,dense"), HasSubstr("one pattern is wanted here"));
  EXPECT_THAT(pattern_error("window:8*2"), HasSubstr("one pattern is wanted here"));
  EXPECT_THAT(pattern_error("window:1+window:2+window:3+window:4+window:5+strided:6"),
              HasSubstr("a pattern may have at most 6 terms"));
}

TEST(ParsePattern, ErrorsAreOneLineWhateverTheText) {
  for (const char* text : {"window:4\n+strid:3", "a\nb", "block:\n"})
    EXPECT_THAT(pattern_error(text), testing::Not(testing::HasSubstr("\n")));
}

TEST(ParseSchedule, CommasOpenLayersOrSeparateNumbers) {
  const Schedule schedule = parse_schedule("summary:128,32+block:128, strided:64*3 , window:9|dense");
  ASSERT_EQ(schedule.cycle.size(), 5u);
  EXPECT_EQ(schedule.cycle[0].groups, (std::vector<Pattern>{parse_pattern("summary:128,32+block:128")}));
  for (int layer = 1; layer <= 3; ++layer)
    EXPECT_EQ(schedule.cycle[layer].groups, (std::vector<Pattern>{parse_pattern("strided:64")}));
  EXPECT_EQ(schedule.cycle[4].groups,
            (std::vector<Pattern>{parse_pattern("window:9"), parse_pattern("dense")}));
  EXPECT_EQ(to_string(schedule), "summary:128,32+block:128,window:64+stride:64*3,window:9|dense");
  EXPECT_EQ(schedule.layer(7), schedule.cycle[2]);
}

TEST(ParseSchedule, Errors) {
  EXPECT_THAT(schedule_error("dense*0"), HasSubstr("the count after '*' must be from 1 to 65536, here 0"));
  EXPECT_THAT(schedule_error("dense*"), HasSubstr("the count after '*' is missing"));
  EXPECT_THAT(schedule_error("dense*70000"), HasSubstr("must be from 1 to 65536"));
  EXPECT_THAT(schedule_error("dense*65536,dense"), HasSubstr("at most 65536 layers"));
  EXPECT_THAT(schedule_error("dense,"), HasSubstr("ends after 'dense,'"));
  EXPECT_THAT(schedule_error("dense*2,3"), HasSubstr("a name should stand where '3' is"));
  EXPECT_THAT(schedule_error("dense||window:3"),
              HasSubstr("a name should stand after 'dense|', not '|window:3'"));
  EXPECT_THAT(schedule_error("dense;window:3"), HasSubstr("';window:3' does not belong after 'dense'"));
  EXPECT_THAT(schedule_error(""), HasSubstr("is empty"));
}

TEST(Heads, GetTheirGroupAndTheirRun) {
  const LayerPattern layer = parse_schedule("window:64|spread-summary:8,2").cycle[0];
  EXPECT_EQ(to_string(layer.for_head(0, 8)), "window:64");
  EXPECT_EQ(to_string(layer.for_head(3, 8)), "window:64");
  EXPECT_EQ(to_string(layer.for_head(4, 8)), "summary:8,2");  // run 4 mod 4
  EXPECT_EQ(to_string(layer.for_head(7, 8)), "summary:8,2,3");
  EXPECT_THROW(layer.for_head(8, 8), Error);
  EXPECT_THROW(layer.for_head(-1, 8), Error);
  EXPECT_THROW(layer.for_head(0, 3), Error);
  EXPECT_EQ(to_string(parse_pattern("spread-summary:8,2+summary:8,2,1").for_head(1)), "summary:8,2,1");
}

TEST(Heads, MustBeDealtEqually) {
  const Schedule schedule = parse_schedule("dense,window:4|stride:4");
  EXPECT_NO_THROW(check_heads(schedule, 2));
  EXPECT_EQ(message_of([&] { check_heads(schedule, 3); }),
            "layer 'window:4|stride:4' has 2 patterns, which 3 heads cannot share equally; take a multiple "
            "of 2 heads");
  EXPECT_THAT(message_of([&] { check_heads(schedule, 0); }), HasSubstr("heads is 0"));
}

TEST(Pattern, ComparesTheTermsInUseOnly) {
  Pattern a = parse_pattern("window:4"), b = a;
  b.terms[1].size = 77;
  EXPECT_EQ(a, b);
  b.add({TermKind::dense});
  EXPECT_FALSE(a == b);
  for (int i = 10; i < 15; ++i) a.add({TermKind::window, i});
  EXPECT_THROW(a.add({TermKind::window, 99}), Error);
  EXPECT_NO_THROW(a.add({TermKind::window, 14}));
}

Term random_term() {
  const auto number = [](int64_t low, int64_t high) {
    return *rc::gen::resize(100, rc::gen::inRange(low, high));
  };
  const terms::Entry& entry =
      terms::table()[static_cast<size_t>(number(0, static_cast<int64_t>(terms::table().size())))];
  Term term{entry.kind};
  for (const terms::Number& field : entry.numbers)
    term.*field.field = number(field.least, field.most == nullptr ? 5000 : field.most(term) + 1);
  return term;
}

TEST(ToStringProperty, RoundTrips) {
  EXPECT_TRUE(rc::check("a schedule's text reads back as the same schedule", [] {
    Schedule schedule;
    const int layers = *rc::gen::resize(100, rc::gen::inRange(1, 5));
    for (int l = 0; l < layers; ++l) {
      LayerPattern layer;
      const int groups = *rc::gen::resize(100, rc::gen::inRange(1, 4));
      for (int g = 0; g < groups; ++g) {
        Pattern pattern;
        const int terms = *rc::gen::resize(100, rc::gen::inRange(1, 7));
        for (int t = 0; t < terms; ++t) pattern.add(random_term());
        RC_ASSERT(parse_pattern(to_string(pattern)) == pattern);
        layer.groups.push_back(pattern);
      }
      const int times = *rc::gen::resize(100, rc::gen::inRange(1, 4));
      schedule.cycle.insert(schedule.cycle.end(), static_cast<size_t>(times), layer);
    }
    const std::string text = to_string(schedule);
    RC_ASSERT(parse_schedule(text).cycle == schedule.cycle);
    RC_ASSERT(to_string(parse_schedule(text)) == text);
  }));
}

// Whatever the text, the result is a schedule or an Error, and nothing else.
TEST(ParseProperty, RubbishIsRefusedPolitely) {
  EXPECT_TRUE(rc::check("any text", [] {
    const auto pieces = *rc::gen::container<std::vector<std::string>>(
        rc::gen::element<std::string>("window", "dense", "fixed", "summary", ":", ",", "+", "|", "*", "-",
                                      "8", "3", "0", " ", "99999999999", "x", "\xff"));
    std::string text;
    for (const std::string& piece : pieces) text += piece;
    try {
      const Schedule schedule = parse_schedule(text);
      RC_ASSERT(parse_schedule(to_string(schedule)).cycle == schedule.cycle);
    } catch (const Error& error) {
      RC_ASSERT(std::string(error.what()).find(text) != std::string::npos);
    }
  }));
}

TEST(Parse, LimitsThePatternsOfAllLayersTogether) {
  std::string groups = "dense";
  for (int i = 1; i < 5; ++i) groups += "|dense";
  try {
    parse_schedule(groups + "*65536");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("at most 262144 patterns of heads together"));
  }
  EXPECT_EQ(parse_schedule("dense|window:4|window:8|window:16*65536").cycle.size(), 65536u);
}

TEST(WrittenSchedule, IsParsedOnceAndKeepsWhatDoesNotParse) {
  WrittenSchedule written = "fixed:8,2,dense";
  EXPECT_EQ(written.parsed().cycle.size(), 2u);
  const WrittenSchedule copy = written;
  EXPECT_EQ(&copy.parsed(), &written.parsed());
  written.set_text("fixd:8");
  EXPECT_EQ(written.text(), "fixd:8");
  EXPECT_EQ(message_of([&] { written.parsed(); }), pattern_error("fixd:8"));
  written = "window:4";
  EXPECT_EQ(to_string(written.parsed()), "window:4");
  EXPECT_FALSE(written == copy);
}

}  // namespace
}  // namespace longstride
