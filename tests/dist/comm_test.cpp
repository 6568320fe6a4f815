// Collectives, as every rank sees them: alone, and as several ranks that mpirun starts, or that this program
// starts itself where LONGSTRIDE_TEST_RANKS says how many.
#include "longstride/dist/comm.h"

#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/rng.h"
#include "longstride/dist/launch.h"
#include "longstride/dist/spawn.h"

namespace longstride {
namespace {

// MPI can be joined once in a process.
Comm& ranks() {
  static const std::unique_ptr<Comm> comm = join_ranks();
  return *comm;
}

std::vector<float> values_of(int rank, int64_t count) {
  const RandomStream random{17, static_cast<uint32_t>(rank)};
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[static_cast<size_t>(i)] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  return values;
}

TEST(Comm, SumsAreThoseInTheOrderOfTheRanks) {
  Comm& comm = ranks();
  // Fewer elements than ranks, shards of unlike sizes, and more than go in one piece.
  for (const int64_t count : {int64_t{1}, int64_t{2}, int64_t{1000}, (int64_t{1} << 22) + 7}) {
    std::vector<float> sums = values_of(0, count), mine = values_of(comm.rank(), count);
    for (int rank = 1; rank < comm.size(); ++rank) {
      const std::vector<float> of_rank = values_of(rank, count);
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += of_rank[i];
    }
    comm.sum(Tensor(mine.data(), DType::f32, {count}));
    EXPECT_TRUE(mine == sums) << count << " elements";
  }
}

TEST(Comm, EachRankGetsTheBytesOfRankZero) {
  Comm& comm = ranks();
  std::array<int, 3> numbers{};
  if (comm.rank() == 0) numbers = {3, 1, 4};
  comm.broadcast(numbers.data(), sizeof(numbers));
  EXPECT_THAT(numbers, testing::ElementsAre(3, 1, 4));
}

TEST(Comm, TextsOfAnyLengthAreGathered) {
  Comm& comm = ranks();
  const std::vector<std::string> all = comm.gather(std::string(static_cast<size_t>(2 * comm.rank()), 'x'));
  ASSERT_EQ(static_cast<int>(all.size()), comm.size());
  for (int rank = 0; rank < comm.size(); ++rank)
    EXPECT_EQ(static_cast<int>(all[static_cast<size_t>(rank)].size()), 2 * rank);
}

TEST(Comm, AllRanksHearOfTheFirstThatFails) {
  Comm& comm = ranks();
  agree(comm, "");
  const int failing = comm.size() - 1;
  try {
    agree(comm, comm.rank() == failing ? "no such file" : "");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              comm.size() == 1 ? "no such file" : fmt::format("rank {}: no such file", failing));
  }
}

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  using namespace longstride;
  const char* ranks = std::getenv("LONGSTRIDE_TEST_RANKS");
  if (ranks != nullptr && launch_of_environment().launcher == Launcher::none)
    return run_ranks(std::atoi(ranks), argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
