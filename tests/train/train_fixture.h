// A small run in a temporary folder, for tests of training.
#pragma once

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/train/trainer.h"

#include "tests/support/temporary_folder.h"

namespace longstride {

// A text that a small model can learn: words of a small vocabulary in a random order.
inline std::string babble(int64_t bytes) {
  const char* words[] = {"the ", "quick ", "brown ", "fox ", "jumps ", "over ", "a ", "lazy ", "dog. "};
  const RandomStream random{11, 0, 0};
  std::string text;
  for (uint64_t i = 0; static_cast<int64_t>(text.size()) < bytes; ++i) text += words[random.block(i)[0] % 9];
  return text;
}

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() {
    std::ofstream(directory_ / "text.txt") << babble(20000);
    config_.model.context = 64;
    config_.model.layers = 2;
    config_.model.heads = 2;
    config_.model.width = 32;
    config_.model.pattern = "fixed:16,4";
    config_.data.path = directory_ / "text.txt";
    config_.train.steps = 24;
    config_.train.batch = 4;
    config_.train.micro_batch = 2;
    config_.train.learning_rate = 3e-3;
    config_.train.warmup = 5;
    config_.train.dropout = 0.2;
    config_.train.average = 0.9;
    config_.train.validate_every = 8;
    config_.train.checkpoint_every = 4;
    config_.train.keep_last = 10;
    config_.compute.device = "cpu";
  }

  std::string run(const std::string& name) const { return directory_ / name; }

  TrainSummary train(const std::string& name, const RunConfig& config) {
    TrainObserver observer;
    observer.show_progress = false;
    observer.note = [this](const std::string& line) { notes_ += line + "\n"; };
    return train_run(run(name), config, -1, observer);
  }

  // Makes the run "a" diverge after four good steps; returns the message that ended it.
  std::string diverge() {
    config_.train.steps = 4;
    train("a", config_);
    config_.train.steps = 400;
    config_.train.learning_rate = 10;
    config_.train.clip = 0;
    config_.train.epsilon = 0;
    config_.train.warmup = 1;
    config_.train.weight_decay = 10;  // |1 - rate * decay| = 99 a step: diverges for certain
    try {
      train("a", config_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  // The newest checkpoint is the last that was due before the step which `message` names, and finite.
  void expect_last_good_checkpoint(const std::string& message) const {
    ASSERT_THAT(message, testing::MatchesRegex("step [0-9]+: .* is not finite.*"));
    const int64_t every = config_.train.checkpoint_every, failed = std::stoll(message.substr(5));
    const IntactCheckpoint newest = newest_intact(run("a"));
    ASSERT_TRUE(newest.found);
    EXPECT_EQ(newest.found->step, (failed - 1) / every * every) << message;
    const OpenCheckpoint checkpoint(*newest.found);
    for (const std::string& name : checkpoint.model().names()) {
      const Tensor tensor = checkpoint.model().find(name);
      for (int64_t i = 0; i < tensor.count(); ++i) ASSERT_TRUE(std::isfinite(tensor.as<float>()[i])) << name;
    }
  }

  std::string bytes_of(const std::string& name, int64_t step, const std::string& file) const {
    std::ifstream in(find_checkpoint(run(name), step).path + "/" + file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  TemporaryFolder directory_;
  RunConfig config_;
  std::string notes_;
};

// Weights and all that training keeps beside them.
inline std::string bits_of(const Trainer& trainer) {
  std::string bits;
  const CheckpointContents contents = trainer.contents();
  for (const auto* tensors : {&contents.model, &contents.state})
    for (const NamedTensor& named : *tensors)
      bits.append(static_cast<const char*>(named.tensor.data), static_cast<size_t>(named.tensor.bytes()));
  return bits;
}

// Compares everything a checkpoint holds, elapsed time apart.
inline void expect_same_tensors(const OpenCheckpoint& a, const OpenCheckpoint& b) {
  const auto compare = [](const SafetensorsFile& x, const SafetensorsFile& y) {
    ASSERT_EQ(x.names(), y.names());
    for (const std::string& name : x.names()) {
      const Tensor left = x.find(name), right = y.find(name);
      ASSERT_EQ(left.bytes(), right.bytes());
      EXPECT_EQ(std::memcmp(left.data, right.data, left.bytes()), 0) << name;
    }
  };
  compare(a.model(), b.model());
  compare(a.state(), b.state());
}

}  // namespace longstride
