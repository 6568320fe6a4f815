#include <gmock/gmock.h>

#include "longstride/data/corpus.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::error_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SplitTest : public data_test::DataTest {
 protected:
  SplitTest() {
    data_test::write_file(at("a.txt"), data_test::noise(1001, 1));
    data_test::write_file(at("b.txt"), data_test::noise(77, 2));
    Bytes records;
    for (int record = 0; record < 10; ++record)
      records.insert(records.end(), 3073, static_cast<uint8_t>(record));
    data_test::write_file(at("a.bin"), records);
  }
  std::vector<int64_t> ends(std::vector<double> split, const std::string& kind = "text",
                            const std::string& name = "a.txt") {
    DataConfig wanted = config(kind, name);
    wanted.split = std::move(split);
    const Splits splits = open_splits(wanted);
    EXPECT_EQ(splits.train.begin, 0);
    EXPECT_EQ(splits.validation.begin, splits.train.end);
    EXPECT_EQ(splits.test.begin, splits.validation.end);
    return {splits.train.end, splits.validation.end, splits.test.end};
  }
  std::string error(std::vector<double> split) {
    return error_of([&] { ends(std::move(split)); });
  }
};

TEST_F(SplitTest, Fractions) {
  EXPECT_THAT(ends({0.9, 0.05, 0.05}), ElementsAre(900, 950, 1001));
  EXPECT_THAT(ends({0.5, 0.25}), ElementsAre(500, 750, 750));
  EXPECT_THAT(ends({1}), ElementsAre(1001, 1001, 1001));
  EXPECT_THAT(ends({0.1, 0.2, 0.7}), ElementsAre(100, 300, 1001));
  EXPECT_THAT(ends({0, 0, 1}), ElementsAre(0, 0, 1001));
}

TEST_F(SplitTest, Counts) {
  EXPECT_THAT(ends({900, 50, 50}), ElementsAre(900, 950, 1000));
  EXPECT_THAT(ends({999, 1, 1}), ElementsAre(999, 1000, 1001));
  EXPECT_THAT(ends({2}), ElementsAre(2, 2, 2));
}

TEST_F(SplitTest, PicturesAreNeverCut) {
  EXPECT_THAT(ends({0.55, 0.3, 0.15}, "image", "a.bin"), ElementsAre(5 * 3072, 8 * 3072, 10 * 3072));
  EXPECT_THAT(ends({6, 3, 1}, "image", "a.bin"), ElementsAre(6 * 3072, 9 * 3072, 10 * 3072));
}

TEST_F(SplitTest, SegmentsShowTheirBytes) {
  DataConfig wanted = config("text", "a.txt");
  const Splits splits = open_splits(wanted);
  const Bytes bytes = data_test::noise(1001, 1);
  EXPECT_EQ(splits.test.read(0, 51), Bytes(bytes.begin() + 950, bytes.end()));
  EXPECT_EQ(splits.test.read(3, 4), Bytes(bytes.begin() + 953, bytes.begin() + 957));
  EXPECT_THAT(error_of([&] { splits.test.read(50, 2); }), HasSubstr("of a part of 51"));
  EXPECT_EQ(splits.test.size(), 51);
  EXPECT_TRUE(Segment{}.read(0, 0).empty());
}

TEST_F(SplitTest, PartsWithTheirOwnPath) {
  DataConfig wanted = config("text", "a.txt");
  wanted.test_path = at("b.txt");
  Splits splits = open_splits(wanted);
  EXPECT_EQ(splits.train.size(), 950);  // 0.9 and the share that test does not need
  EXPECT_EQ(splits.validation.size(), 51);
  EXPECT_EQ(splits.test.size(), 77);
  EXPECT_EQ(splits.test.read(0, 1)[0], data_test::noise(77, 2)[0]);
  wanted.validation_path = at("b.txt");
  splits = open_splits(wanted);
  EXPECT_EQ(splits.train.size(), 1001);
  wanted.split = {900};
  EXPECT_EQ(open_splits(wanted).train.size(), 900);
}

TEST_F(SplitTest, PartsMustHaveTheSameShape) {
  DataConfig wanted = config("image", "a.bin");
  wanted.split = {1};
  wanted.test_path = at("t.npy");
  const std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), }\n";
  Bytes npy = data_test::bytes_of(std::string("\x93NUMPY\x01") + '\0' + static_cast<char>(header.size()) +
                                  '\0' + header);
  npy.resize(npy.size() + 4);
  data_test::write_file(wanted.test_path, npy);
  EXPECT_THAT(error_of([&] { open_splits(wanted); }),
              AllOf(HasSubstr("2 x 2 x 1"), HasSubstr("32 x 32 x 3")));
}

TEST_F(SplitTest, WhatDoesNotFitIsExplained) {
  EXPECT_THAT(error({0.9, 0.2}), AllOf(HasSubstr("0.9, 0.2"), HasSubstr("add up to 1.1")));
  EXPECT_THAT(error({1, 1, 1}), HasSubstr("add up to 3"));
  EXPECT_THAT(error({900, 50, 52}), AllOf(HasSubstr("1002 bytes"), HasSubstr("has 1001")));
  EXPECT_THAT(error({900.5, 50}), HasSubstr("must be whole"));
  EXPECT_THAT(error({900, 0.5}), HasSubstr("must be whole"));
  EXPECT_THAT(error({0.5, -0.1}), HasSubstr("data.split"));
  EXPECT_THAT(error({0, 0, 0}), HasSubstr("nothing to read"));
  EXPECT_THAT(error({}), HasSubstr("one to three"));
  EXPECT_THAT(error({0.25, 0.25, 0.25, 0.25}), HasSubstr("one to three"));
  EXPECT_THAT(error({0.9995, 0.0001, 0.0004}), AllOf(HasSubstr("too short"), HasSubstr("validation")));
}

TEST_F(SplitTest, BytesInMemoryAreLikeThoseOfAFile) {
  const Bytes bytes = data_test::noise(1001, 1);
  const auto corpus = std::make_shared<const Corpus>(bytes);
  EXPECT_EQ(corpus->size(), 1001);
  EXPECT_EQ(corpus->record_bytes(), 0);
  const Splits memory = split_corpus(corpus, {0.9, 0.05, 0.05}), file = open_splits(config("text", "a.txt"));
  for (const Segment Splits::*part : {&Splits::train, &Splits::validation, &Splits::test}) {
    ASSERT_EQ((memory.*part).begin, (file.*part).begin);
    ASSERT_EQ((memory.*part).end, (file.*part).end);
    EXPECT_EQ((memory.*part).read(0, (memory.*part).size()), (file.*part).read(0, (file.*part).size()));
  }
  EXPECT_THAT(cached(), ElementsAre());
  EXPECT_THAT(error_of([&] {
                Segment{corpus, 0, 2000}.read(1000, 2);
              }),
              HasSubstr("bytes [1000, 1002) of memory"));
  EXPECT_THAT(error_of([] { Corpus{Bytes{}}; }), HasSubstr("memory is empty"));
  EXPECT_THAT(error_of([&] { split_corpus(corpus, {2000}); }), HasSubstr("but memory has 1001"));
}

TEST_F(SplitTest, PicturesInMemoryAreNeverCut) {
  const auto corpus =
      std::make_shared<const Corpus>(data_test::noise(60, 4), ImageShape{2, 3, 1}, "drawings");
  EXPECT_EQ(corpus->record_bytes(), 6);
  const Splits splits = split_corpus(corpus, {0.55, 0.3, 0.15});
  EXPECT_EQ(splits.train.end, 30);
  EXPECT_EQ(splits.validation.end, 48);
  EXPECT_EQ(splits.test.end, 60);
  EXPECT_THAT(error_of([] {
                Corpus(Bytes(61, 0), ImageShape{2, 3, 1}, "drawings");
              }),
              HasSubstr("drawings has 61 bytes, which are no whole pictures of 2 x 3 x 1"));
}

}  // namespace
}  // namespace longstride
