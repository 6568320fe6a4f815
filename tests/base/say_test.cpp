#include "longstride/base/say.h"

#include <gtest/gtest.h>

namespace longstride {
namespace {

TEST(Say, ALineAsAnEvent) {
  EXPECT_EQ(as_event("note       two  words"), R"({"event":"note","text":"two  words"})");
  EXPECT_EQ(as_event("left out   a run"), R"({"event":"left_out","text":"a run"})");
  EXPECT_EQ(as_event("longstride: no such file"), R"({"event":"error","text":"no such file"})");
  EXPECT_EQ(as_event("finished at step 3"), R"({"event":"message","text":"finished at step 3"})");
  EXPECT_EQ(as_event("Step 3  finished"), R"({"event":"message","text":"Step 3  finished"})");
  EXPECT_EQ(as_event("note  "), R"({"event":"note","text":""})");
  EXPECT_EQ(as_event(""), R"({"event":"message","text":""})");
}

TEST(Say, WhateverIsInALineTheEventIsJson) {
  EXPECT_EQ(as_event("a \"b\" \\ c\td\n\x1b \xff"),
            R"({"event":"message","text":"a \"b\" \\ c\td\\x0a\\x1b \\xff"})");
}

}  // namespace
}  // namespace longstride
