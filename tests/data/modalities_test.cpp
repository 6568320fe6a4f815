// The properties of every kind of data.
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/data/modalities/image.h"
#include "longstride/data/modalities/modality.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::error_of;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

DataConfig config_of(std::string_view kind) {
  DataConfig config;
  config.kind = kind;
  return config;
}

TEST(Modalities, EachIsWhole) {
  std::set<std::string_view> names;
  for (const Modality* modality : modalities()) {
    SCOPED_TRACE(modality->name);
    EXPECT_TRUE(names.insert(modality->name).second);
    EXPECT_EQ(find_modality(modality->name), modality);
    for (const std::string_view word :
         {modality->one, modality->all, modality->verb, modality->reads, modality->formats})
      EXPECT_FALSE(word.empty());
    EXPECT_TRUE(modality->describe && modality->encodings && modality->decode && modality->prime);
    EXPECT_TRUE(modality->write && modality->restore);
    // A kind with its own file format has an extension, and something to extract from a file.
    EXPECT_EQ(modality->extension.empty(), modality->as_is);
    EXPECT_EQ(modality->material == nullptr, modality->as_is);
    EXPECT_EQ(modality->looks.empty(), modality->as_is);
    EXPECT_LT(modality->fast.cpu_context + 1, modality->fast.contexts.size());
    const DataConfig config = config_of(modality->name);
    EXPECT_EQ(&modality_of(config), modality);
    EXPECT_FALSE(modality->encodings(config).empty());
  }
}

TEST(Modalities, WhatIsNoneIsRefused) {
  EXPECT_EQ(find_modality("smell"), nullptr);
  EXPECT_EQ(error_of([] { modality_of(config_of("auto")); }),
            "data.kind is left open; say " + kinds_in_words());
  EXPECT_THAT(error_of([] { modality_of(config_of("smell")); }),
              HasSubstr("data.kind = smell, must be " + kinds_in_words()));
  EXPECT_THAT(kinds_in_words(" (any bytes)"), StartsWith("text (any bytes), image"));
  EXPECT_THAT(kinds_in_words(), ContainsRegex("^text, image.* or [a-z]+$"));
  EXPECT_THAT(kinds_beside(kImage), StartsWith("text"));
  EXPECT_THAT(kinds_beside(kImage), Not(HasSubstr("image")));
}

}  // namespace
}  // namespace longstride
