// The child is this very test program, asked for its help or for a case that waits.
#include "longstride/sweep/child.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

// Run by the cases below alone.
TEST(Child, DISABLED_TellsItsVariable) { printf("variable: %s\n", std::getenv("LONGSTRIDE_TEST_CHILD")); }
TEST(Child, DISABLED_Waits) { sleep(60); }

ChildCommand command_for(const std::string& test, const std::string& log) {
  return {{"--gtest_also_run_disabled_tests", "--gtest_filter=Child.DISABLED_" + test},
          {{"LONGSTRIDE_TEST_CHILD", "a = b"}},
          log};
}

int code_of(Child& child) {
  for (int i = 0; i < 3000; ++i) {
    if (const auto code = child.ended()) return *code;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return -1;
}

TEST(Child, HasItsEnvironmentAndItsLog) {
  const TemporaryFolder folder;
  for (int time = 0; time < 2; ++time) {
    Child child(command_for("TellsItsVariable", folder / "log"));
    EXPECT_EQ(code_of(child), 0);
    EXPECT_FALSE(child.ended());  // told once
  }
  const std::string log = read_bytes(folder / "log");
  EXPECT_THAT(log, HasSubstr("variable: a = b"));
  EXPECT_NE(log.find("variable:"), log.rfind("variable:"));  // appended
}

TEST(Child, EndsBySignals) {
  const TemporaryFolder folder;
  Child child(command_for("Waits", folder / "log"));
  EXPECT_FALSE(child.ended());
  child.send(SIGKILL);
  EXPECT_EQ(code_of(child), 128 + SIGKILL);
  const auto begin = std::chrono::steady_clock::now();
  { const Child forgotten(command_for("Waits", folder / "log")); }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  EXPECT_THROW(Child(command_for("Waits", folder / "no/log")), Error);
}

TEST(Child, EachSeesOneGpuOfThoseThatTheParentSees) {
  using testing::ElementsAre;
  EXPECT_THAT(one_gpu_each(3, nullptr), ElementsAre("0", "1", "2"));
  EXPECT_THAT(one_gpu_each(2, "5, GPU-1234,7"), ElementsAre("5", "GPU-1234"));
}

}  // namespace
}  // namespace longstride
