// Plans of memory against what a CPU's machine or container has.
#include "longstride/run/cpu_room.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/device/memory.h"
#include "longstride/train/memory.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

TEST(CpuRoom, WhatNeverFitsIsRefusedAndWhatDoesNotNowIsToldOf) {
  const CpuMemory machine{8 * kGiB, 3 * kGiB, false}, container{8 * kGiB, 3 * kGiB, true};
  EXPECT_EQ(check_cpu_room({}, 3 * kGiB, "the work", "ask for less", machine), "");
  EXPECT_THAT(check_cpu_room({}, 3 * kGiB + 1, "the work", "ask for less", machine),
              AllOf(HasSubstr("the work needs 3.0 GiB"), HasSubstr("this machine 3.0 GiB are free"),
                    HasSubstr("; ask for less")));
  const auto refusal = [&](int64_t bytes, const CpuMemory& memory) {
    return message_of<Error>([&] { check_cpu_room({}, bytes, "the work", "ask for less", memory); });
  };
  EXPECT_EQ(refusal(9 * kGiB, machine),
            "not enough memory: the work needs 9.0 GiB, this machine has 8.0 GiB; ask for less");
  EXPECT_THAT(refusal(9 * kGiB, container), HasSubstr("this container has 8.0 GiB"));
  // What the process holds already is not there for the work.
  EXPECT_THAT(refusal(8 * kGiB - resident_memory() / 2, machine), HasSubstr("not enough memory"));
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(check_cpu_room({}, 1000 * kGiB, "the work", "", {kUnknown, kUnknown, false}), "");
  EXPECT_EQ(check_cpu_room({DeviceKind::cuda, 0}, 1000 * kGiB, "the work", "", machine), "");
}

class CpuRoomTest : public TrainerTest {};

TEST_F(CpuRoomTest, TrainingThatCannotFitIsRefusedBeforeItBegins) {
  EXPECT_EQ(check_training_memory(config_).warning, "");
  config_.model.width = 65536, config_.model.layers = 64;
  EXPECT_THAT(message_of<Error>([&] { check_training_memory(config_); }),
              AllOf(HasSubstr("not enough memory: training needs "), HasSubstr(" TiB, this "),
                    HasSubstr("no setting of train.activations and train.micro_batch makes it fit")));
}

TEST_F(CpuRoomTest, RanksOfOneMachineHaveItsMemoryTogether) {
  const int64_t most = cpu_memory().most;
  if (most > 1000 * kGiB) GTEST_SKIP() << "no limit is known here";
  // More than half of the machine: one process may have it, two may not.
  while (training_memory(config_).total() <= most / 2)
    config_.train.micro_batch = config_.train.batch += 2 + config_.train.batch / 20;
  EXPECT_NO_THROW(check_training_memory(config_));
  RunConfig shared = config_;  // each of two ranks takes as much
  shared.train.batch *= 2;
  EXPECT_NO_THROW(check_training_memory(shared, 2));
  EXPECT_THAT(message_of<Error>([&] { check_training_memory(shared, 2, 2); }),
              AllOf(HasSubstr("not enough memory: training by 2 ranks of this machine needs "),
                    HasSubstr(" would fit with ")));
  // What is named does fit, and can be shared out.
  const int64_t room = (most - 2 * resident_memory()) / 2 - kLibraryMemory;
  const std::optional<RunConfig> smaller = settings_that_fit(shared, room, 2);
  ASSERT_TRUE(smaller.has_value());
  EXPECT_NO_THROW(check_training_memory(*smaller, 2, 2));
}

TEST_F(CpuRoomTest, SettingsThatWouldFitAreNamed) {
  const int64_t most = cpu_memory().most;
  if (most > 1000 * kGiB) GTEST_SKIP() << "no limit is known here";
  // So many sequences at a time that only they are too much.
  const auto needed = [&] { return training_memory(config_).total(); };
  while (needed() <= most) config_.train.micro_batch = config_.train.batch *= 2;
  EXPECT_THAT(message_of<Error>([&] { check_training_memory(config_); }),
              AllOf(HasSubstr("not enough memory: training needs "), HasSubstr("train.micro_batch = "),
                    HasSubstr(" would fit with ")));
}

}  // namespace
}  // namespace longstride
