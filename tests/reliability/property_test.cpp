// Random small configs live a whole life: they train, are gone on with, evaluate, sample, compress, and train on two ranks. Whatever a
// config is, the run that was interrupted has the bits of the one that was not, samples and files come out the same twice, and what is
// compressed comes back. A failure is shrunk to the fewest settings that show it. RC_PARAMS="max_success=1000" for more of them,
// LONGSTRIDE_TEST_DEVICE=cuda on a GPU.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "longstride/checkpoint/safetensors.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;

template <class T>
T one_of(std::vector<T> list) {
  return *rc::gen::elementOf(std::move(list));
}

// The settings of a run as arguments. The first of each list is the plain choice, to which failures shrink.
struct Settings {
  std::vector<std::string> list;
  int64_t batch = 2;
  void add(const std::string& key, const std::string& value) {
    if (!value.empty()) list.push_back(key + "=" + value);
  }
  std::string arguments() const {
    std::string all;
    for (const std::string& setting : list) all += " --set '" + setting + "'";
    return all;
  }
};

template <class T>
std::string any(std::initializer_list<T> list) {
  const std::vector<T> values(list);
  const int at = *rc::gen::inRange(0, static_cast<int>(values.size()));
  return fmt::format("{}", values[static_cast<size_t>(at)]);
}

Settings any_settings(bool pictures) {
  Settings s;
  const int64_t heads = 1 + *rc::gen::inRange(0, 3), head = 2 << *rc::gen::inRange(0, 4);
  const std::string context = pictures ? "64" : any({32, 16, 48, 64, 80});
  const int row = 4 + *rc::gen::inRange(0, 13);
  const std::string pattern = one_of<std::string>(
      {"dense", fmt::format("window:{}", row), fmt::format("strided:{}", row),
       fmt::format("fixed:{},{}", row, row / 4), fmt::format("stride:{},window:{}*2", row, row),
       fmt::format("block:{}+prefix:3", row), fmt::format("dilated:{},2+previous-row:{}", row, row),
       heads % 2 == 0 ? fmt::format("window:{}|stride:{}", row, row)
                      : fmt::format("summary:{},1+window:{}", row, row)});
  s.add("model.context", context);
  s.add("model.layers", any({1, 2, 3}));
  s.add("model.heads", fmt::format("{}", heads));
  s.add("model.width", fmt::format("{}", heads * head));
  s.add("model.pattern", pattern);
  s.add("model.qk_width", any<int64_t>({0, heads * 2, heads * 6}));
  s.add("model.feed_forward", any({0, 24, 40}));
  s.add("model.positions", any({"paper", "released", "rotary"}));
  s.add("model.qk_norm", any({"false", "true"}));
  s.add("model.value_residual", any({"0", "0.5"}));
  s.add("model.convolution", any({0, 4}));
  s.add("model.init", any({"paper", "released"}));
  s.batch = 2 * (1 + *rc::gen::inRange(0, 2));
  s.add("train.batch", fmt::format("{}", s.batch));
  s.add("train.optimizer", any({"adam", "muon"}));
  s.add("train.newton_schulz", any({"polar", "jordan"}));
  s.add("train.decay", any({"cosine", "linear", "constant"}));
  s.add("train.average", any({"0", "0.9"}));
  s.add("train.dropout", any({"0", "0.2"}));
  s.add("train.verify_every", any({"0", "1"}));
  s.add("train.clip", any({"1", "0", "0.01"}));
  s.add("train.warmup", any({-1, 0, 2}));
  s.add("train.activations", any({"keep", "recompute"}));
  s.add("train.pattern_schedule", any({"", "window:3 until 0.5"}));
  if (!pictures) s.add("train.context_schedule", any({"", "8 until 0.5", "16 until 0.3"}));
  s.add("train.seed", any({1, 2, 3}));
  s.add("compute.precision", any({"f32", "auto"}));
  return s;
}

class PropertyTest : public CliTest {
 protected:
  void SetUp() override {
    if (const char* device = std::getenv("LONGSTRIDE_TEST_DEVICE")) device_ = device;
    setenv("RC_PARAMS", "max_success=30", 0);  // before rapidcheck reads it, and only where nobody has set it
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += "record " + std::to_string(i * i % 211) + (i % 7 == 0 ? ";\n" : ", ");
    write("text.txt", text);
    write("part.txt", text.substr(100, 150));
    // IDX: 40 pictures of 8 x 8.
    std::string pictures{'\0', '\0', '\x08', '\x03', '\0', '\0', '\0', '\x28',
                         '\0', '\0', '\0',   '\x08', '\0', '\0', '\0', '\x08'};
    for (int i = 0; i < 40 * 64; ++i) pictures += static_cast<char>(i % 64 * 3 + i / 64 * 5);
    write("pictures-idx3-ubyte", pictures);
  }

  // Runs it, and it has to succeed.
  Outcome good(const std::string& arguments) {
    Outcome outcome = longstride(arguments);
    RC_ASSERT(outcome.code >= 0);
    if (outcome.code != 0) RC_LOG() << "longstride " << arguments << "\n" << outcome.err << std::endl;
    RC_ASSERT(outcome.code == 0);
    return outcome;
  }

  // Every tensor of a checkpoint.
  std::string state(const std::string& run, int step) {
    std::string all;
    for (const char* file : {"model", "state"}) {
      const SafetensorsFile tensors(folder_ /
                                    fmt::format("{}/checkpoints/step-{:08}/{}.safetensors", run, step, file));
      for (const std::string& name : tensors.names()) {
        const Tensor tensor = tensors.find(name);
        all += name + ": " +
               std::string(static_cast<const char*>(tensor.data), static_cast<size_t>(tensor.bytes()));
      }
    }
    return all;
  }

  void live(bool pictures) {
    for (const char* run : {"whole", "parts", "ranks", "micro"}) fs::remove_all(folder_ / run);
    const Settings settings = any_settings(pictures);
    write("small.toml",
          std::string("[data]\nkind = '") + (pictures ? "image" : "text") + "'\npath = '" +
              (pictures ? "pictures-idx3-ubyte" : "text.txt") +
              "'\nsplit = [0.8, 0.1, 0.1]\n[train]\nrecipe = 'paper'\nsteps = 4\nlearning_rate = 3e-3\n"
              "validate_every = 2\ncheckpoint_every = 2\nkeep_last = 9\n[compute]\nthreads = 1\ndevice = '" +
              device_ + "'\n");
    const std::string train = "train small.toml --quiet" + settings.arguments() + " --run ";
    RC_LOG() << "longstride " << train << "whole" << std::endl;
    const Outcome first = longstride(train + "whole");
    if (first.code == 1 && std::count(first.err.begin(), first.err.end(), '\n') == 1 &&
        first.err.starts_with("longstride: ")) {
      RC_ASSERT(!fs::exists(folder_ / "whole"));
      RC_TAG("refused");
      ++refused_;
      return;
    }
    RC_LOG() << first.err << std::endl;
    RC_ASSERT(first.code == 0);
    RC_TAG(pictures ? "pictures" : "text");
    ++lived_;
    const std::string end = state("whole", 4);
    // Gone on with from the middle, and from the end of a shorter session.
    good("train whole --step 2 --quiet");
    RC_ASSERT(state("whole", 4) == end);
    if (device_ == "cpu") {  // several GPUs have tests of their own
      // By two ranks as by two micro-batches.
      good(train + "micro --set train.micro_batch=" + std::to_string(settings.batch / 2));
      good(train + "ranks --ranks 2");
      RC_ASSERT(state("ranks", 4) == state("micro", 4));
      good(train + "parts --ranks 2 --set compute.shard_optimizer=true");
      RC_ASSERT(state("parts", 4) == state("micro", 4));
    }
    good("eval whole --split test --json");
    good("verify whole");
    // One sequence after the other, or side by side.
    const std::string name = pictures ? ".png" : ".txt", sample = "sample whole --seed 5 --count 2 --output ";
    good(sample + "a" + name);
    good(sample + "b" + name + " --streams 1");
    const std::vector<std::string> endings =
        pictures ? std::vector<std::string>{".png"} : std::vector<std::string>{"-1.txt", "-2.txt"};
    for (const std::string& ending : endings) {
      const std::string drawn = read_bytes(folder_ / ("a" + ending));
      RC_ASSERT(!drawn.empty());
      RC_ASSERT(drawn == read_bytes(folder_ / ("b" + ending)));
      fs::remove(folder_ / ("a" + ending)), fs::remove(folder_ / ("b" + ending));
    }
    if (pictures) return;
    good("compress whole part.txt --output c.lsc");
    good("decompress whole c.lsc --output back.txt");
    RC_ASSERT(read_bytes(folder_ / "back.txt") == read_bytes(folder_ / "part.txt"));
    fs::remove(folder_ / "c.lsc"), fs::remove(folder_ / "back.txt");
  }

  std::string device_ = "cpu";
  int refused_ = 0, lived_ = 0;
};

TEST_F(PropertyTest, RunsOnTextLiveAWholeLife) {
  EXPECT_TRUE(rc::check("runs on text", [this] { live(false); }));
  EXPECT_GE(lived_, 2 * refused_);
}

TEST_F(PropertyTest, RunsOnPicturesLiveAWholeLife) {
  EXPECT_TRUE(rc::check("runs on pictures", [this] { live(true); }));
  EXPECT_GE(lived_, 2 * refused_);
}

}  // namespace
}  // namespace longstride
