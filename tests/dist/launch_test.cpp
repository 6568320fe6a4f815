// Which launcher a process finds itself started by.
#include "longstride/dist/launch.h"

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

class LaunchTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE",
                             "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "RANK", "WORLD_SIZE", "MASTER_ADDR",
                             "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"})
      unsetenv(name);
  }
  void TearDown() override { SetUp(); }
  static void set(const char* rank, const char* rank_value, const char* size, const char* size_value) {
    setenv(rank, rank_value, 1);
    setenv(size, size_value, 1);
  }
};

TEST_F(LaunchTest, WithoutALauncherAProcessIsAlone) {
  EXPECT_EQ(launch_of_environment().launcher, Launcher::none);
  EXPECT_EQ(join_ranks()->size(), 1);
}

TEST_F(LaunchTest, ABatchScriptOfSlurmIsAlone) {
  set("SLURM_PROCID", "0", "SLURM_NTASKS", "8");
  EXPECT_EQ(launch_of_environment().launcher, Launcher::none);
  unsetenv("SLURM_NTASKS");
}

TEST_F(LaunchTest, EachLauncherIsKnownByItsVariables) {
  set("SLURM_PROCID", "0", "SLURM_STEP_NUM_TASKS", "5");
  EXPECT_EQ(launch_of_environment().launcher, Launcher::slurm);
  set("RANK", "1", "WORLD_SIZE", "4");
  EXPECT_EQ(launch_of_environment().launcher, Launcher::torchrun);
  set("PMI_RANK", "2", "PMI_SIZE", "3");
  EXPECT_EQ(launch_of_environment().launcher, Launcher::pmi);
  set("OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE", "2");
  const Launch launch = launch_of_environment();
  EXPECT_EQ(launch.launcher, Launcher::open_mpi);
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.size, 2);
}

TEST_F(LaunchTest, VariablesThatMakeNoSenseAreRefused) {
  set("PMI_RANK", "3", "PMI_SIZE", "3");
  EXPECT_THROW(launch_of_environment(), Error);
  set("PMI_RANK", "one", "PMI_SIZE", "3");
  EXPECT_THROW(launch_of_environment(), Error);
  // In 32 bits it would be rank 0.
  set("PMI_RANK", "4294967296", "PMI_SIZE", "3");
  EXPECT_THAT(message_of<Error>([] { launch_of_environment(); }),
              testing::HasSubstr("PMI_RANK = 4294967296 is too large"));
}

// Why ranks cannot be joined.
std::string refusal(int rank, int size, const Meeting& meeting) {
  try {
    join_tcp({Launcher::torchrun, rank, size}, meeting);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_F(LaunchTest, WhereRanksMeetIsInTheEnvironment) {
  EXPECT_EQ(meeting_of_environment().port, 29500);
  setenv("MASTER_ADDR", "node7", 1);
  setenv("MASTER_PORT", "1234", 1);
  EXPECT_EQ(meeting_of_environment().host, "node7");
  EXPECT_EQ(meeting_of_environment().port, 1234);
  // torchrun's own store listens there.
  setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
  EXPECT_EQ(meeting_of_environment().port, 1235);
  setenv("MASTER_PORT", "70000", 1);
  EXPECT_THROW(meeting_of_environment(), Error);
}

TEST_F(LaunchTest, RanksThatDoNotComeAreNamed) {
  EXPECT_EQ(refusal(0, 4, {.port = 29611, .patience_ms = 100}),
            "ranks 1, 2, 3 of 4 did not come to 127.0.0.1:29611 within 0 s");
  EXPECT_THAT(refusal(2, 4, {.port = 29611, .patience_ms = 100}),
              testing::HasSubstr("rank 0 does not answer rank 2 at 127.0.0.1:29611"));
  EXPECT_THAT(refusal(0, 2, {.host = "no.such.host.invalid", .patience_ms = 100}),
              testing::HasSubstr("MASTER_ADDR = no.such.host.invalid is no host that can be found"));
}

TEST_F(LaunchTest, ATakenPortIsNamed) {
  std::thread holder([] { refusal(0, 2, {.port = 29612, .patience_ms = 1500}); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_THAT(refusal(0, 2, {.port = 29612, .patience_ms = 100}),
              testing::HasSubstr("rank 0 cannot meet the others at 127.0.0.1:29612: Address already in use"));
  holder.join();
}

TEST_F(LaunchTest, ARankThatEndsIsNamed) {
  const Meeting meeting{.port = 29613, .patience_ms = 20'000};
  std::thread other([&] { join_tcp({Launcher::torchrun, 1, 2}, meeting); });
  const std::unique_ptr<Comm> comm = join_tcp({Launcher::torchrun, 0, 2}, meeting);
  other.join();
  EXPECT_THROW(comm->gather("anybody there?"), RankLost);
}

}  // namespace
}  // namespace longstride
