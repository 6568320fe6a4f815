#include "longstride/train/update_shares.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

namespace longstride {
namespace {

std::vector<ParameterSpec> table_of(int64_t layers) {
  ModelConfig config;
  config.context = 64, config.layers = layers, config.heads = 2, config.width = 32;
  config.convolution = 4;
  return parameter_table(config);
}

TEST(UpdateShares, EachParameterHasOneRankAndTheWorkIsEven) {
  const std::vector<ParameterSpec> table = table_of(30);
  for (const bool muon : {false, true})
    for (const int ranks : {1, 2, 3, 4, 8}) {
      size_t next = 0;
      int64_t most = 0, all = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const ParameterRange range = UpdateShares(table, muon, ranks, rank).own();
        EXPECT_EQ(range.first, next);
        next = range.end;
        int64_t count = 0;
        for (size_t i = range.first; i < range.end; ++i) count += table[i].count();
        most = std::max(most, count), all += count;
      }
      EXPECT_EQ(next, table.size());
      EXPECT_LT(static_cast<double>(most), 1.15 * static_cast<double>(all) / ranks) << ranks << " ranks";
    }
}

TEST(UpdateShares, ThereMayBeMoreRanksThanParameters) {
  const std::vector<ParameterSpec> table = table_of(1);
  const int ranks = 3 * static_cast<int>(table.size());
  const UpdateShares shares(table, true, ranks, 0);
  const ParameterStore store(table, {}, DType::f32);
  const std::vector<int64_t> begins = shares.begins(store);
  ASSERT_EQ(begins.size(), static_cast<size_t>(ranks) + 1);
  EXPECT_EQ(begins.front(), 0);
  EXPECT_EQ(begins.back(), store.flat().count());
  EXPECT_TRUE(std::is_sorted(begins.begin(), begins.end()));
}

}  // namespace
}  // namespace longstride
