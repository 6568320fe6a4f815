#include "longstride/base/cpu_memory.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A machine of 1000 MiB with 200 of swap, of which 600 are free.
class CpuMemoryTest : public testing::Test {
 protected:
  CpuMemoryTest() {
    write("proc/meminfo",
          "MemTotal:        1024000 kB\nMemFree:          100000 kB\nMemAvailable:     614400 kB\n"
          "SwapTotal:        204800 kB\nSwapFree:         204800 kB\n");
  }
  void write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  void write_bytes_of(const std::string& name, int64_t mebibytes) {
    write(name, std::to_string(mebibytes * kMiB) + "\n");
  }
  void expect(int64_t most, int64_t free, bool limited) {
    const CpuMemory memory = cpu_memory(folder_.path());
    EXPECT_EQ(memory.most, most * kMiB);
    EXPECT_EQ(memory.free, free * kMiB);
    EXPECT_EQ(memory.limited, limited);
  }
  TemporaryFolder folder_;
};

TEST_F(CpuMemoryTest, OfAMachine) {
  expect(1200, 600, false);
  write("proc/self/cgroup", "0::/job\n");
  write("sys/fs/cgroup/job/memory.max", "max\n");
  expect(1200, 600, false);
}

TEST_F(CpuMemoryTest, OfAGroupAndThoseAboveIt) {
  write("proc/self/cgroup", "0::/slice/job\n");
  write("sys/fs/cgroup/slice/job/memory.max", "max\n");
  write_bytes_of("sys/fs/cgroup/slice/memory.max", 500);
  write_bytes_of("sys/fs/cgroup/slice/memory.current", 300);
  write("sys/fs/cgroup/slice/memory.stat", "anon 1\ninactive_file " + std::to_string(90 * kMiB) +
                                               "\nactive_file " + std::to_string(10 * kMiB) + "\n");
  expect(700, 300, true);  // of the 300 in use 100 can be dropped
  write_bytes_of("sys/fs/cgroup/slice/memory.swap.max", 50);
  expect(550, 300, true);
  write("sys/fs/cgroup/slice/memory.swap.max", "max\n");
  expect(700, 300, true);
  write_bytes_of("sys/fs/cgroup/slice/job/memory.max", 100);
  write_bytes_of("sys/fs/cgroup/slice/job/memory.current", 130);
  expect(300, 0, true);
}

TEST_F(CpuMemoryTest, OfAContainerWhoseGroupHasANameOfTheHost) {
  write("proc/self/cgroup", "0::/../../host/docker/abc\n");
  write_bytes_of("sys/fs/cgroup/memory.max", 400);
  write_bytes_of("sys/fs/cgroup/memory.current", 100);
  expect(600, 300, true);
}

TEST_F(CpuMemoryTest, OfVersionOne) {
  write("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/a\n0::/\n");
  write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  expect(1200, 600, false);
  write_bytes_of("sys/fs/cgroup/memory/a/memory.limit_in_bytes", 200);
  write_bytes_of("sys/fs/cgroup/memory/a/memory.usage_in_bytes", 150);
  write("sys/fs/cgroup/memory/a/memory.stat",
        "inactive_file 5\ntotal_inactive_file " + std::to_string(20 * kMiB) + "\n");
  expect(400, 70, true);
  write_bytes_of("sys/fs/cgroup/memory/a/memory.memsw.limit_in_bytes", 200);
  expect(200, 70, true);
}

TEST_F(CpuMemoryTest, UnknownIsNoLimit) {
  write("proc/meminfo", "nothing that is known\n");
  const CpuMemory memory = cpu_memory(folder_.path());
  EXPECT_EQ(memory.most, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(memory.free, std::numeric_limits<int64_t>::max());
  EXPECT_GT(cpu_memory().most, 0);
}

}  // namespace
}  // namespace longstride
