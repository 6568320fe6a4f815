// Which launcher a process finds itself started by.
#include "longstride/dist/launch.h"

#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

class LaunchTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE",
                             "SLURM_PROCID", "SLURM_NTASKS", "RANK", "WORLD_SIZE"})
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

TEST_F(LaunchTest, EachLauncherIsKnownByItsVariables) {
  set("SLURM_PROCID", "0", "SLURM_NTASKS", "5");
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
}

TEST_F(LaunchTest, ProcessesOfTorchrunAreNotJoinedYet) {
  set("RANK", "0", "WORLD_SIZE", "2");
  try {
    join_ranks();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("torchrun started 2 processes"));
  }
}

}  // namespace
}  // namespace longstride
