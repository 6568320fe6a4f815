// Sums over ranks by their devices: in the order of the ranks, whatever the sizes, and without a result where a
// rank is gone. The devices are threads here.
#include "longstride/train/gradient_sum.h"

#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/base/rng.h"
#include "longstride/dist/device_comm.h"

#include "tests/support/wires.h"

namespace longstride {
namespace {

class Numbered : public Comm {
 public:
  Numbered(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void sum(const Tensor&) override { FAIL() << "the devices sum"; }
  void broadcast(void*, int64_t) override {}
  std::vector<std::string> gather(std::string_view) override { return {}; }

 private:
  int rank_, size_;
};

TEST(GradientSum, DevicesAddInTheOrderOfTheRanks) {
  // Ranges from back to front as a model's blocks are, then the tail and the head.
  const std::vector<std::pair<int64_t, int64_t>> ranges{
      {900, 1400}, {500, 900}, {100, 500}, {1400, 1407}, {0, 100}};
  for (const int ranks : {2, 3, 5})
    for (const int64_t piece : {64, 333, 1000, 100000}) {
      SCOPED_TRACE(::testing::Message() << ranks << " ranks, pieces of " << piece);
      const int64_t count = 1407;
      std::vector<std::vector<float>> gradients(static_cast<size_t>(ranks));
      std::vector<float> expected;
      double losses = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const RandomStream random{7, static_cast<uint32_t>(rank), 0};
        for (int64_t i = 0; i < count; ++i)
          gradients[static_cast<size_t>(rank)].push_back(
              static_cast<float>(random.normal(static_cast<uint64_t>(i))));
        const std::vector<float>& own = gradients[static_cast<size_t>(rank)];
        if (rank == 0) expected.assign(own.size(), 0);
        for (size_t i = 0; i < own.size(); ++i) expected[i] = rank == 0 ? own[i] : expected[i] + own[i];
        losses += 0.1 * (rank + 1);
      }
      support::Wires wires;
      std::vector<UpdateControl> controls(static_cast<size_t>(ranks));
      std::vector<std::thread> threads;
      for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
          Numbered comm(rank, ranks);
          std::vector<float>& own = gradients[static_cast<size_t>(rank)];
          UpdateControl& control = controls[static_cast<size_t>(rank)];
          const auto sum = gradient_sum_of_devices(comm, std::make_unique<support::ByWires>(wires, rank), {},
                                                   Tensor(own.data(), DType::f32, {count}), piece);
          control.losses = 0.1 * (rank + 1);
          for (const auto& [begin, end] : ranges) sum->ready(begin, end);
          sum->finish(&control);
          sum->wait();
        });
      for (std::thread& thread : threads) thread.join();
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_EQ(gradients[static_cast<size_t>(rank)], expected) << "rank " << rank;
        EXPECT_EQ(controls[static_cast<size_t>(rank)].losses, losses) << "rank " << rank;
      }
      EXPECT_TRUE(wires.all_received());
    }
}

// Where each rank has a share of its own it gets the sums of that alone, and some may have none.
TEST(GradientSum, ASharesSumStaysWithItsRank) {
  constexpr int kRanks = 4;
  const std::vector<int64_t> shares{0, 300, 300, 1000, 1407};
  std::vector<std::vector<float>> gradients;
  for (int rank = 0; rank < kRanks; ++rank) gradients.emplace_back(1407, static_cast<float>(1 << rank));
  support::Wires wires;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank)
    threads.emplace_back([&, rank] {
      Numbered comm(rank, kRanks);
      std::vector<float>& own = gradients[static_cast<size_t>(rank)];
      UpdateControl control;
      control.losses = 1;
      const auto sum = gradient_sum_of_devices(comm, std::make_unique<support::ByWires>(wires, rank), {},
                                               Tensor(own.data(), DType::f32, {1407}), 64, shares);
      sum->ready(700, 1407);
      sum->ready(0, 700);
      sum->finish(&control);
      sum->wait();
      EXPECT_EQ(control.losses, kRanks);
    });
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < kRanks; ++rank)
    for (int64_t i = 0; i < 1407; ++i) {
      const bool own = i >= shares[static_cast<size_t>(rank)] && i < shares[static_cast<size_t>(rank) + 1];
      ASSERT_EQ(gradients[static_cast<size_t>(rank)][static_cast<size_t>(i)],
                own ? 15 : static_cast<float>(1 << rank))
          << rank << ", " << i;
    }
  EXPECT_TRUE(wires.all_received());
}

// A loss that is no number keeps the update from changing anything.
TEST(GradientSum, WhatIsAbandonedHasNoResult) {
  support::Wires wires;
  Numbered comm(0, 2);
  std::vector<float> gradients(100, 1.0f);
  const auto sum = gradient_sum_of_devices(comm, std::make_unique<support::ByWires>(wires, 0), {},
                                           Tensor(gradients.data(), DType::f32, {100}), 64);
  UpdateControl control;
  control.losses = 1;
  sum->abandon();
  sum->ready(0, 100);
  sum->finish(&control);
  EXPECT_TRUE(std::isnan(control.losses));
}

}  // namespace
}  // namespace longstride
