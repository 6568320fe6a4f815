// What is brought to the disk before what. The program's own fsync stands in for the library's here.
#include <algorithm>
#include <climits>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "tests/train/train_fixture.h"

namespace {

struct Synced {
  std::string path;
  std::set<std::string> names;  // in a folder, at that moment
};

std::vector<Synced>& synced() {
  static std::vector<Synced> all;
  return all;
}

}  // namespace

extern "C" int fsync(int descriptor) {
  char path[PATH_MAX] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  if (readlink(link.c_str(), path, sizeof path - 1) > 0) {
    Synced entry{path, {}};
    std::error_code ignored;
    for (const auto& each : std::filesystem::directory_iterator(path, ignored))
      entry.names.insert(each.path().filename().string());
    synced().push_back(entry);
  }
  return static_cast<int>(syscall(SYS_fsync, descriptor));
}

namespace longstride {
namespace {

class DurableTest : public TrainerTest {
 protected:
  void train_anew() {
    synced().clear();
    train("new", config_);
    folder_ = std::filesystem::canonical(run("new")).string();
  }
  template <class IsIt>
  static std::ptrdiff_t place_of(IsIt is_it) {
    return std::find_if(synced().begin(), synced().end(), is_it) - synced().begin();
  }
  static std::ptrdiff_t count() { return std::ssize(synced()); }
  static bool is_metrics(const Synced& entry) { return entry.path.ends_with("metrics.jsonl"); }

  std::string folder_;
};

TEST_F(DurableTest, MetricsReachTheDiskBeforeTheCheckpointAndANewFolderWithItsParent) {
  config_.train.validate_every = 0;
  train_anew();
  const std::string parent = std::filesystem::path(folder_).parent_path().string();
  const auto of_parent = place_of([&](const Synced& entry) { return entry.path == parent; });
  const auto of_metrics = place_of(is_metrics);
  const auto of_checkpoint =
      place_of([](const Synced& entry) { return entry.path.find("/checkpoints/") != std::string::npos; });
  EXPECT_LT(of_parent, of_metrics);
  EXPECT_LT(of_metrics, of_checkpoint);
  EXPECT_LT(of_checkpoint, count());
}

TEST_F(DurableTest, TheNameOfTheMetricsReachesTheDiskBeforeTheCheckpoint) {
  train_anew();
  const auto of_name = place_of([&](const Synced& entry) {
    return entry.path == folder_ && entry.names.contains("metrics.jsonl") &&
           !entry.names.contains("model.safetensors");
  });
  const auto of_checkpoint =
      place_of([](const Synced& entry) { return entry.path.find("/checkpoints/") != std::string::npos; });
  EXPECT_LT(of_name, of_checkpoint);
  EXPECT_LT(of_checkpoint, count());
}

// A resumed run does not validate again what a checkpoint knows.
TEST_F(DurableTest, TheLineOfAValidationReachesTheDiskBeforeItsCheckpointKnowsTheOutcome) {
  train_anew();
  const auto is_amendment = [](const Synced& entry) {
    return entry.path.find("amended.json") != std::string::npos;
  };
  ASSERT_LT(place_of(is_amendment), count());
  for (size_t i = 0; i < synced().size(); ++i)
    if (is_amendment(synced()[i])) {
      EXPECT_TRUE(i > 0 && is_metrics(synced()[i - 1])) << i;
    }
}

// Else the power may go between, and leave the name without the content, which nobody removes.
TEST_F(DurableTest, AnOldCheckpointLosesItsNameOnTheDiskBeforeItsContent) {
  config_.train.keep_last = 1;
  train_anew();
  const auto of_removal = place_of([&](const Synced& entry) {
    return entry.path == folder_ + "/checkpoints" && !entry.names.contains("step-00000004") &&
           std::any_of(entry.names.begin(), entry.names.end(),
                       [](const std::string& name) { return name.starts_with(".tmp-step-00000004-"); });
  });
  const auto of_last =
      place_of([](const Synced& entry) { return entry.path.find("step-00000024-") != std::string::npos; });
  EXPECT_LT(of_removal, of_last);
  EXPECT_LT(of_last, count());
}

}  // namespace
}  // namespace longstride
