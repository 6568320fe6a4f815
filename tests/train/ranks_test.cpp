// What one rank cannot do ends the step on all of them: none is left waiting.
#include "longstride/train/ranks.h"

#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/input_file.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

// Rank 0 or 1 of two, the other of which says what it is told to.
class OneOfTwo : public Comm {
 public:
  explicit OneOfTwo(int rank) : rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return 2; }
  void sum(const Tensor&) override { ++sums; }
  void broadcast(void*, int64_t) override {}
  std::vector<std::string> gather(std::string_view mine) override {
    last = mine;
    return rank_ == 0 ? std::vector<std::string>{last, other} : std::vector<std::string>{other, last};
  }
  std::string other, last;
  int sums = 0;

 private:
  int rank_;
};

TEST_F(TrainerTest, AnotherRanksFailureEndsTheStepAndLosesNothing) {
  config_.train.batch = 4;
  const Splits splits = open_splits(config_.data);
  OneOfTwo comm(0);
  Trainer trainer(config_, splits, comm);
  trainer.join_ranks();
  comm.other = "the disk is gone";
  try {
    trainer.step();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "rank 1: the disk is gone");
  }
  EXPECT_EQ(comm.sums, 0);
  EXPECT_EQ(trainer.state().step, 0);
}

TEST_F(TrainerTest, AStageThatARankCannotBuildIsToldToTheOthers) {
  config_.train.batch = 4;
  const Splits splits = open_splits(config_.data);
  OneOfTwo comm(1);
  Trainer trainer(config_, splits, comm);
  trainer.join_ranks();
  StepOrder order;
  order.stage = 1000;  // there is none
  EXPECT_THROW(trainer.take(order), Error);
  EXPECT_NE(comm.last, "");
  EXPECT_EQ(comm.sums, 0);
}

TEST_F(TrainerTest, ABatchHasToDivideAmongRanks) {
  config_.train.batch = 4;
  EXPECT_EQ(for_ranks(config_, 2).train.micro(), 2);
  EXPECT_THAT(message_of<Error>([&] { for_ranks(config_, 3); }), testing::HasSubstr("take 3 or 6"));
}

}  // namespace
}  // namespace longstride
