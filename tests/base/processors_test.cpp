#include "longstride/base/processors.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <sched.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(Processors, QuotasOfControlGroups) {
  const TemporaryFolder folder;
  const std::filesystem::path root = folder.path();
  EXPECT_EQ(cpu_quota(root), 0);

  write_file(root / "proc/self/cgroup", "0::/system.slice/job\n");
  write_file(root / "sys/fs/cgroup/system.slice/job/cpu.max", "max 100000\n");
  EXPECT_EQ(cpu_quota(root), 0);
  write_file(root / "sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(cpu_quota(root), 1.5);
  write_file(root / "sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_DOUBLE_EQ(cpu_quota(root), 0.5);
}

TEST(Processors, TheTopOfAContainerCountsWhateverItsGroupIsCalled) {
  const TemporaryFolder folder;
  const std::filesystem::path root = folder.path();
  write_file(root / "proc/self/cgroup", "0::/../../host/docker/abc\n");
  write_file(root / "sys/fs/cgroup/cpu.max", "250000 100000\n");
  EXPECT_DOUBLE_EQ(cpu_quota(root), 2.5);
}

TEST(Processors, QuotasOfVersionOne) {
  const TemporaryFolder folder;
  const std::filesystem::path root = folder.path();
  write_file(root / "proc/self/cgroup", "7:memory:/a\n4:cpu,cpuacct:/a/b\n");
  write_file(root / "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
  write_file(root / "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota(root), 0);
  write_file(root / "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
  write_file(root / "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "200000\n");
  EXPECT_DOUBLE_EQ(cpu_quota(root), 1.5);
}

TEST(Processors, TheAffinityMaskIsRespected) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
      break;
    }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(available_processors(), 1);
  sched_setaffinity(0, sizeof before, &before);
}

}  // namespace
}  // namespace longstride
