#include "longstride/data/batches.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include <gmock/gmock.h>

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(KeyedPermutation, IsAPermutationForEveryCount) {
  for (int64_t count = 1; count <= 300; ++count) {
    const KeyedPermutation order(count, 99);
    std::vector<bool> seen(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t value = order(i);
      ASSERT_TRUE(0 <= value && value < count);
      ASSERT_FALSE(seen[static_cast<size_t>(value)]) << "count " << count << ": " << value << " twice";
      seen[static_cast<size_t>(value)] = true;
    }
  }
  EXPECT_NO_THROW(KeyedPermutation(int64_t{1} << 45, 1)((int64_t{1} << 45) - 1));
}

// Over many keys each of 5 things must come first about equally often: chi-squared with 4 degrees of freedom.
TEST(KeyedPermutation, KeysGiveDifferentOrders) {
  std::vector<int> first(5);
  for (uint64_t key = 0; key < 5000; ++key) ++first[static_cast<size_t>(KeyedPermutation(5, key * 7919)(0))];
  double chi_squared = 0;
  for (const int count : first) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 18.5);  // exceeded by chance once in 1000
  const KeyedPermutation order(1000, 5);
  int fixed = 0, ascending = 0;
  for (int64_t i = 0; i + 1 < 1000; ++i) fixed += order(i) == i, ascending += order(i) < order(i + 1);
  EXPECT_LT(fixed, 10);
  EXPECT_NEAR(ascending, 500, 60);
}

class BatchTest : public data_test::DataTest {
 protected:
  // Bytes whose values give their place modulo 251.
  Segment stream(int64_t size, int64_t begin, int64_t end) {
    Bytes bytes(static_cast<size_t>(size));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i % 251);
    const std::string name = fmt::format("{}.txt", size);
    data_test::write_file(at(name), bytes);
    return {std::make_shared<const Corpus>(open_corpus(config("text", name), at(name))), begin, end};
  }
  Segment pictures(int64_t count) {
    std::string header =
        fmt::format("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 2, 3, 1), }}\n", count);
    Bytes bytes = data_test::bytes_of(std::string("\x93NUMPY\x01") + '\0');
    bytes.push_back(static_cast<uint8_t>(header.size()));
    bytes.push_back(0);
    bytes.insert(bytes.end(), header.begin(), header.end());
    for (int64_t picture = 0; picture < count; ++picture)
      bytes.insert(bytes.end(), 6, static_cast<uint8_t>(picture));
    data_test::write_file(at("a.npy"), bytes);
    auto corpus = std::make_shared<const Corpus>(open_corpus(config("image", "a.npy"), at("a.npy")));
    return {corpus, 0, corpus->size()};
  }
};

TEST_F(BatchTest, EveryEpochVisitsEachWindowOnce) {
  for (const auto& [begin, end, context] :
       {std::tuple{100, 1100, 32}, {0, 1000, 1}, {7, 1000, 100}, {0, 1000, 500}, {3, 700, 64}}) {
    const BatchLoader loader(stream(1100, begin, end), context, 3, 11);
    const int64_t windows = loader.windows_per_epoch();
    ASSERT_GE(windows, (end - begin) / context - 1);
    std::set<int64_t> phases;
    for (int64_t epoch = 0; epoch < 20; ++epoch) {
      std::vector<int64_t> starts;
      for (int64_t i = 0; i < windows; ++i) starts.push_back(loader.start_of(epoch * windows + i));
      std::sort(starts.begin(), starts.end());
      ASSERT_GE(starts.front(), begin);
      ASSERT_LE(starts.back() + context, end);
      for (int64_t i = 1; i < windows; ++i)
        ASSERT_EQ(starts[i] - starts[i - 1], context) << "not side by side";
      ASSERT_LT(starts.front() - begin, context);
      phases.insert(starts.front());
    }
    EXPECT_GE(phases.size(), context > 20 ? 10u : 1u) << "the same windows in every epoch";
  }
}

TEST_F(BatchTest, EpochsDifferInOrder) {
  const BatchLoader loader(stream(5000, 0, 5000), 10, 1, 3);
  const int64_t windows = loader.windows_per_epoch();
  std::vector<int64_t> first, second;
  for (int64_t i = 0; i < windows; ++i) {
    first.push_back(loader.start_of(i) / 10);
    second.push_back(loader.start_of(windows + i) / 10);
  }
  EXPECT_NE(first, second);
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
}

TEST_F(BatchTest, PhasesAreUniform) {
  const BatchLoader loader(stream(64, 0, 64), 16, 1, 5);
  const int64_t windows = loader.windows_per_epoch();
  ASSERT_EQ(windows, 3);
  std::vector<int> counts(16);
  for (int64_t epoch = 0; epoch < 16000; ++epoch)
    ++counts[static_cast<size_t>(loader.start_of(epoch * windows) % 16)];
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
}

TEST_F(BatchTest, SegmentHardlyLongerThanTheContextGivesWindowsEverywhere) {
  const BatchLoader loader(stream(110, 0, 110), 100, 2, 1);
  EXPECT_EQ(loader.windows_per_epoch(), 1);
  std::set<int64_t> starts;
  for (int64_t example = 0; example < 300; ++example) starts.insert(loader.start_of(example));
  EXPECT_EQ(starts.size(), 11u);
  EXPECT_EQ(*starts.begin(), 0);
  EXPECT_EQ(*starts.rbegin(), 10);
  const BatchLoader exact(stream(100, 0, 100), 100, 1, 1);
  EXPECT_EQ(exact.start_of(17), 0);
}

TEST_F(BatchTest, LoadIsAPureFunctionOfSeedAndStep) {
  const Segment segment = stream(3000, 50, 2950);
  const BatchLoader loader(segment, 37, 5, 42), same(segment, 37, 5, 42), other(segment, 37, 5, 43);
  Bytes forward(5 * 37), backward(5 * 37), different(5 * 37), part(2 * 37);
  int unequal = 0;
  for (const int64_t step : {0, 1, 16, 17, 1000, 123456789}) {
    loader.load(step, forward.data());
    same.load(step + 3, backward.data());
    same.load(step, backward.data());
    ASSERT_EQ(forward, backward);
    other.load(step, different.data());
    unequal += forward != different;
    for (int64_t s = 0; s < 5; ++s) {
      const int64_t start = loader.start_of(step * 5 + s);
      for (int64_t i = 0; i < 37; ++i) ASSERT_EQ(forward[static_cast<size_t>(s * 37 + i)], (start + i) % 251);
    }
    loader.load(step, 3, 2, part.data());
    ASSERT_TRUE(std::equal(part.begin(), part.end(), forward.begin() + 3 * 37));
  }
  EXPECT_EQ(unequal, 6);
}

// The order in which a run reads must never change between versions, or the run could not resume. These
// start offsets were written down once.
TEST_F(BatchTest, OrderStaysWhatItWas) {
  const BatchLoader loader(stream(1000, 0, 1000), 100, 1, 2024);
  std::vector<int64_t> starts;
  for (int64_t example = 0; example < 12; ++example) starts.push_back(loader.start_of(example));
  EXPECT_THAT(starts, ::testing::ElementsAre(268, 668, 68, 768, 568, 168, 368, 468, 868, 810, 510, 610));
}

TEST_F(BatchTest, RecordsComeWholeAndOnceAnEpoch) {
  const BatchLoader loader(pictures(20), 6, 4, 9);
  EXPECT_EQ(loader.windows_per_epoch(), 20);
  Bytes batch(4 * 6);
  std::multiset<uint8_t> seen;
  for (int64_t step = 0; step < 5; ++step) {
    loader.load(step, batch.data());
    for (size_t s = 0; s < 4; ++s) {
      for (size_t i = 1; i < 6; ++i) ASSERT_EQ(batch[6 * s + i], batch[6 * s]);
      seen.insert(batch[6 * s]);
    }
  }
  for (int picture = 0; picture < 20; ++picture) EXPECT_EQ(seen.count(static_cast<uint8_t>(picture)), 1u);
}

TEST_F(BatchTest, WhatDoesNotFitIsExplained) {
  EXPECT_THAT(error_of([&] { BatchLoader(pictures(3), 12, 1, 0); }),
              AllOf(HasSubstr("2 x 3 x 1 = 6"), HasSubstr("set the context to 6")));
  Segment empty = pictures(3);
  empty.end = 0;
  EXPECT_THAT(error_of([&] { BatchLoader(empty, 6, 1, 0); }), HasSubstr("no pictures"));
  EXPECT_THAT(error_of([&] { BatchLoader(stream(99, 0, 99), 100, 1, 0); }),
              AllOf(HasSubstr("99 bytes"), HasSubstr("context of 100")));
  EXPECT_THAT(error_of([&] { BatchLoader(stream(99, 0, 99), 10, 0, 0); }), HasSubstr("positive"));
  EXPECT_THAT(error_of([&] { BatchLoader(Segment{}, 10, 1, 0); }), HasSubstr("no data"));
}

}  // namespace
}  // namespace longstride
