// The targets of make fuzz without libFuzzer: their seeds, the inputs that were found once (tests/fuzz/findings/TARGET/),
// and the same with a few changes, equal each time. A finding ends the process.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fuzz/target.h"

namespace longstride::fuzz {
namespace {

constexpr int kChanges = 30;  // of each input

std::vector<Bytes> findings(const std::string& target) {
  std::vector<std::string> paths;
  const std::string folder = std::string(LONGSTRIDE_FUZZ_FINDINGS) + "/" + target;
  if (!std::filesystem::exists(folder)) return {};
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> inputs;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

class Changes {
 public:
  Bytes operator()(Bytes input, size_t most) {
    for (uint32_t left = 1 + below(4); left > 0 && !input.empty(); --left) {
      const size_t at = below(static_cast<uint32_t>(input.size()));
      const auto here = input.begin() + static_cast<ptrdiff_t>(at);
      constexpr uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xFF, '"', '[', '{', '9', '\n'};
      switch (below(6)) {
        case 0:
          *here ^= static_cast<uint8_t>(1u << below(8));
          break;
        case 1:
          *here = kEdges[below(std::size(kEdges))];
          break;
        case 2:
          input.resize(at);
          break;
        case 3:
          input.erase(here, here + static_cast<ptrdiff_t>(std::min<size_t>(1 + below(8), input.size() - at)));
          break;
        case 4:
          input.insert(here, 1 + below(8), kEdges[below(std::size(kEdges))]);
          break;
        default: {
          const Bytes piece(
              here, input.begin() + static_cast<ptrdiff_t>(std::min(input.size(), at + 1 + below(32))));
          const size_t to = below(static_cast<uint32_t>(input.size()));
          input.insert(input.begin() + static_cast<ptrdiff_t>(to), piece.begin(), piece.end());
        }
      }
    }
    if (input.size() > most) input.resize(most);
    return input;
  }

 private:
  uint32_t below(size_t count) {
    return static_cast<uint32_t>(((state_ = state_ * 6364136223846793005u + 1442695040888963407u) >> 33) %
                                 count);
  }
  uint64_t state_ = 7;
};

class Replay : public testing::TestWithParam<Target> {};

TEST_P(Replay, SeedsFindingsAndSomeChangesOfThemAreRefusedOrRead) {
  const Target& target = GetParam();
  std::vector<Bytes> inputs = target.seeds();
  EXPECT_FALSE(inputs.empty());
  for (Bytes& found : findings(target.name)) inputs.push_back(std::move(found));
  Changes change;
  for (const Bytes& input : inputs) {
    target.run(input);
    for (int i = 0; i < kChanges; ++i) target.run(change(input, target.most_bytes));
  }
  target.run({});
}

INSTANTIATE_TEST_SUITE_P(Fuzz, Replay, testing::ValuesIn(targets()),
                         [](const auto& info) { return info.param.name; });

TEST(FuzzTargets, AnUnknownNameIsRefusedWithThoseThatThereAre) {
  EXPECT_THROW(find_target("none"), std::runtime_error);
}

}  // namespace
}  // namespace longstride::fuzz
