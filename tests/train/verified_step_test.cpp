// Steps that are taken twice: a healthy machine trains as without, and one wrong bit ends the step and changes nothing.
#include "longstride/train/verified_step.h"

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Rank 0 of two, the other of which has nothing to add. One bit of the sum number `flipped` is wrong, and at the agreement
// number `complains` the other rank has something to say; both from 1.
class Unreliable : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void sum(const Tensor& tensor) override {
    if (++sums != flipped) return;
    float& value = tensor.as<float>()[tensor.count() / 2];
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1u);
  }
  void broadcast(void*, int64_t) override {}
  std::vector<std::string> gather(std::string_view mine) override {
    if (mine.size() == sizeof(double)) return {std::string(mine), std::string(mine.size(), '\0')};  // losses
    return {std::string(mine), ++agreements == complains ? "its second result differs" : ""};
  }
  int sums = 0, agreements = 0, flipped = 0, complains = 0;
};

class VerifiedStepTest : public TrainerTest {};

TEST_F(VerifiedStepTest, TrainsToTheSameBits) {
  for (const char* optimizer : {"adam", "muon"}) {
    RunConfig config = config_;
    config.train.optimizer = optimizer;
    const std::string once = std::string(optimizer) + "-once", twice = std::string(optimizer) + "-twice";
    train(once, config);
    config.train.verify_every = 3;
    train(twice, config);
    expect_same_tensors(OpenCheckpoint(find_checkpoint(run(once), 24)),
                        OpenCheckpoint(find_checkpoint(run(twice), 24)));
  }
}

TEST_F(VerifiedStepTest, AStepThatIsNotDueIsTakenOnce) {
  config_.train.verify_every = 3;
  Unreliable comm;
  Trainer trainer(config_, open_splits(config_.data), comm);
  trainer.join_ranks();
  std::vector<int> sums;
  for (int step = 1; step <= 6; ++step) {
    comm.sums = 0;
    trainer.step();
    sums.push_back(comm.sums);
  }
  EXPECT_THAT(sums, testing::ElementsAre(sums[0], sums[0], 2 * sums[0], sums[0], sums[0], 2 * sums[0]));
}

TEST_F(VerifiedStepTest, OneWrongBitOfAGradientEndsTheStepAndChangesNothing) {
  config_.train.verify_every = 2;
  Unreliable comm;
  Trainer trainer(config_, open_splits(config_.data), comm);
  trainer.join_ranks();
  trainer.step();
  const int once = comm.sums;
  const std::string before = bits_of(trainer);
  // In the first of the two, and in the second.
  for (const int wrong : {1, once + 1}) {
    comm.sums = 0;
    comm.flipped = wrong;
    EXPECT_THAT(message_of<Error>([&] { trainer.step(); }),
                AllOf(HasSubstr("step 2 was computed twice"), HasSubstr("differ in the gradient, "),
                      HasSubstr("the first moments"), HasSubstr("go on from the last checkpoint")))
        << wrong;
    EXPECT_EQ(comm.sums, 2 * once);
    EXPECT_EQ(trainer.state().step, 1);
    EXPECT_EQ(bits_of(trainer), before) << wrong;
  }
  comm.flipped = 0;
  trainer.step();
  EXPECT_EQ(trainer.state().step, 2);
}

TEST_F(VerifiedStepTest, WhatAnotherRankFindsEndsTheStepHereToo) {
  config_.train.verify_every = 2;
  Unreliable comm;
  const Splits splits = open_splits(config_.data);
  int agreements = 0;
  {
    Trainer healthy(config_, splits, comm);
    healthy.join_ranks();
    healthy.step();
    comm.agreements = 0;
    healthy.step();
    agreements = comm.agreements;
  }
  Trainer trainer(config_, splits, comm);
  trainer.join_ranks();
  trainer.step();
  const std::string before = bits_of(trainer);
  comm.agreements = 0;
  comm.complains = agreements;  // the last
  EXPECT_THAT(message_of<Error>([&] { trainer.step(); }), HasSubstr("rank 1: its second result differs"));
  EXPECT_EQ(bits_of(trainer), before);
}

// What differs is named, also where the update is the same.
TEST_F(VerifiedStepTest, TheMessageNamesWhatDiffers) {
  Optimizer optimizer(config_, {}, DType::f32);
  int calls = 0;
  const auto message = [&](const auto& spoil) {
    calls = 0;
    return message_of<Error>([&] {
      take_twice(optimizer, no_others(), 7, [&] {
        UpdateControl control;
        control.losses = 3, control.norm = 1, control.applied = 1;
        if (++calls == 2) spoil(control);
        return control;
      });
    });
  };
  EXPECT_THAT(message([](UpdateControl& control) { control.losses = 3.0000000000000004; }),
              HasSubstr("the two differ in the loss:"));
  EXPECT_THAT(message([](UpdateControl& control) { control.applied = 0; }),
              HasSubstr("the two differ in the gradient:"));
  for (const FlatState& part : optimizer.flat_state()) {
    float* const last = part.tensor.as<float>() + part.tensor.count() - 1;
    const float value = *last;
    EXPECT_THAT(message([&](UpdateControl&) { *last += 1; }),
                HasSubstr(std::string("the two differ in ") + part.name + ":"));
    EXPECT_EQ(*last, value);
  }
  EXPECT_EQ(optimizer.flat_state().size(), 4u);
}

}  // namespace
}  // namespace longstride
