// The rules of a soak, for readings that are made up here, and for a process that really takes more and more.
#include "tests/reliability/soak_watch.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace longstride::reliability {
namespace {

constexpr int64_t kMiB = 1 << 20;

// 400 readings of a healthy process, with what `change` does to each.
std::vector<Reading> readings(const std::function<void(int64_t, Reading&)>& change) {
  std::vector<Reading> all;
  for (int64_t i = 0; i < 400; ++i) {
    Reading reading;
    reading.seconds = 5.0 * static_cast<double>(i);
    reading.memory = 200 * kMiB + (i % 7) * kMiB;  // a checkpoint takes some for a moment
    reading.descriptors = 12 + i % 3;
    reading.threads = 2;
    reading.steps = 100 * i;
    reading.cpu_seconds = 4.5 * static_cast<double>(i);
    reading.folder_bytes = 30 * kMiB + (i % 5) * kMiB;
    change(i, reading);
    all.push_back(reading);
  }
  return all;
}

std::vector<std::string> failed(const std::vector<Reading>& all) {
  std::vector<std::string> names;
  for (const Finding& finding : judge(all))
    if (finding.failed()) names.push_back(finding.name);
  return names;
}

TEST(SoakWatch, AHealthyProcessPasses) {
  const auto healthy = readings([](int64_t, Reading&) {});
  EXPECT_THAT(failed(healthy), testing::IsEmpty());
  for (const Finding& finding : judge(healthy)) EXPECT_TRUE(finding.judged) << finding.name;
}

TEST(SoakWatch, AStartThatTakesMoreAndMoreIsNoLeak) {
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) {
                reading.memory -= std::max<int64_t>(0, 100 - i) * kMiB;
              })),
              testing::IsEmpty());
}

TEST(SoakWatch, MemoryThatRisesIsNoticed) {
  // 100 KiB a reading, 20 MiB from the middle of the second quarter to that of the last.
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) { reading.memory += i * 100 * 1024; })),
              testing::ElementsAre("memory"));
}

TEST(SoakWatch, DescriptorsThatRiseAreNoticed) {
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) { reading.descriptors += i / 40; })),
              testing::ElementsAre("descriptors"));
}

TEST(SoakWatch, ThreadsAndTheFolderToo) {
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) {
                reading.threads += i / 50;
                reading.folder_bytes += i * 100 * 1024;
              })),
              testing::ElementsAre("threads", "folder"));
}

TEST(SoakWatch, StepsThatTakeMoreOfTheProcessorAreNoticedAndABusyMachineIsNot) {
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) {
                if (i > 250) reading.cpu_seconds += 0.6 * 4.5 * static_cast<double>(i - 250);
              })),
              testing::ElementsAre("CPU time for a step"));
  // Half the steps in the same time, for half of the processor.
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) {
                if (i <= 250) return;
                reading.steps = 25000 + 50 * (i - 250);
                reading.cpu_seconds = 1125 + 2.25 * static_cast<double>(i - 250);
              })),
              testing::IsEmpty());
}

TEST(SoakWatch, ShortQuartersSayNothingOfTheProcessorsTime) {
  const auto slower = [](double apart) {
    return failed(readings([&](int64_t i, Reading& reading) {
      reading.seconds = apart * static_cast<double>(i);
      if (i > 250) reading.cpu_seconds += 0.6 * 4.5 * static_cast<double>(i - 250);
    }));
  };
  EXPECT_THAT(slower(0.1), testing::IsEmpty());
  EXPECT_THAT(slower(1), testing::ElementsAre("CPU time for a step"));
}

TEST(SoakWatch, ATrainingThatStandsStillIsNoticed) {
  EXPECT_THAT(failed(readings([](int64_t i, Reading& reading) {
                reading.steps = std::min<int64_t>(reading.steps, 25000);
                reading.cpu_seconds = 4.5 * static_cast<double>(std::min<int64_t>(i, 250));
              })),
              testing::ElementsAre("CPU time for a step"));
}

TEST(SoakWatch, TooFewReadingsAreNotJudged) {
  auto few = readings([](int64_t i, Reading& reading) { reading.memory += i * kMiB; });
  few.resize(7);
  for (const Finding& finding : judge(few)) EXPECT_FALSE(finding.judged) << finding.name;
}

TEST(SoakWatch, PeaksOfManyProcesses) {
  std::vector<double> flat(1000, 40e6), rising(1000, 40e6);
  for (size_t i = 0; i < rising.size(); ++i) rising[i] += 50e3 * static_cast<double>(i);
  EXPECT_FALSE(judge_peaks(flat).failed());
  EXPECT_TRUE(judge_peaks(rising).failed());
}

TEST(SoakWatch, MemoryOfAGpu) {
  std::vector<double> flat(100, 900.0 * kMiB), rising = flat;
  for (size_t i = 0; i < rising.size(); ++i) rising[i] += kMiB * static_cast<double>(i);
  EXPECT_FALSE(judge_gpu_memory(flat).failed());
  EXPECT_TRUE(judge_gpu_memory(rising).failed());
}

// This process leaks on purpose.
TEST(SoakWatch, ALookAtALeakingProcess) {
  std::vector<std::unique_ptr<char[]>> leak;
  std::vector<int> open_files;
  std::vector<Reading> all;
  for (int64_t i = 0; i < 40; ++i) {
    leak.push_back(std::make_unique<char[]>(kMiB));
    std::memset(leak.back().get(), static_cast<int>(i), kMiB);
    open_files.push_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    all.push_back(look_at(getpid()));
    all.back().steps = 100 * i;
  }
  for (const int file : open_files) close(file);
  const std::vector<std::string> names = failed(all);
  EXPECT_THAT(names, testing::Contains("memory"));
  EXPECT_THAT(names, testing::Contains("descriptors"));
  EXPECT_THAT(table_of(judge(all)), testing::HasSubstr("FAILED"));
}

}  // namespace
}  // namespace longstride::reliability
