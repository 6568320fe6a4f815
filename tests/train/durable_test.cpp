// What is brought to the disk before what. The program's own fsync stands in for the library's here.
#include <algorithm>
#include <climits>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "tests/train/train_fixture.h"

namespace {

std::vector<std::string>& synced() {
  static std::vector<std::string> paths;
  return paths;
}

}  // namespace

extern "C" int fsync(int descriptor) {
  char path[PATH_MAX] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  if (readlink(link.c_str(), path, sizeof path - 1) > 0) synced().emplace_back(path);
  return static_cast<int>(syscall(SYS_fsync, descriptor));
}

namespace longstride {
namespace {

TEST_F(TrainerTest, MetricsReachTheDiskBeforeTheCheckpointAndANewFolderWithItsParent) {
  synced().clear();
  config_.train.validate_every = 0;
  train("new", config_);
  const std::vector<std::string>& paths = synced();
  const auto place_of = [&](const auto& is_it) {
    return std::find_if(paths.begin(), paths.end(), is_it) - paths.begin();
  };
  const std::string parent = std::filesystem::canonical(run("new")).parent_path().string();
  const auto count = static_cast<std::ptrdiff_t>(paths.size());
  const auto of_parent = place_of([&](const std::string& path) { return path == parent; });
  const auto of_metrics = place_of([](const std::string& path) { return path.ends_with("metrics.jsonl"); });
  const auto of_checkpoint =
      place_of([](const std::string& path) { return path.find("/checkpoints/") != std::string::npos; });
  EXPECT_LT(of_parent, of_metrics);
  EXPECT_LT(of_metrics, of_checkpoint);
  EXPECT_LT(of_checkpoint, count);
}

}  // namespace
}  // namespace longstride
