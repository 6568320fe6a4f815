// What a config leaves open: which recipe it means, and the shape of the model that follows from its data.
#include "longstride/run/choices.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/model/cost.h"
#include "longstride/run/prepared_run.h"
#include "longstride/run/run_directory.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

class ChoicesTest : public testing::Test {
 protected:
  std::string text(int64_t bytes) {
    const std::string path = folder_ / "text.txt";
    std::ofstream out(path, std::ios::binary);
    for (int64_t i = 0; i < bytes; ++i) out.put("It is a truth.\n"[i % 15]);
    return path;
  }
  RunConfig fast(const std::string& path) {
    RunConfig config = fast_defaults();
    config.data.path = path;
    config.compute.device = "cpu";
    config.compute.threads = 2;
    return config;
  }
  // As a run chooses.
  RunConfig chosen(RunConfig config) {
    choose_kind(config.data);
    choose_shape(config, open_splits(config.data));
    return config;
  }
  TemporaryFolder folder_;
};

TEST_F(ChoicesTest, AConfigThatNamesARateIsThePapers) {
  RunConfig config;
  EXPECT_TRUE(means_fast_recipe(config, {"data.path", "model.width", "train.batch", "train.seed"}));
  for (const char* key : {"train.learning_rate", "train.optimizer", "model.positions", "train.beta2"}) {
    EXPECT_FALSE(means_fast_recipe(config, {"data.path", key})) << key;
    EXPECT_EQ(named_recipe_field({"data.path", key}), key);
  }
  config.train.recipe = "fast";
  EXPECT_TRUE(means_fast_recipe(config, {"train.recipe", "train.learning_rate"}));
  config.train.recipe = "paper";
  EXPECT_FALSE(means_fast_recipe(config, {"train.recipe"}));
}

TEST_F(ChoicesTest, ThePapersRecipeLeavesNothingOpen) {
  EXPECT_FALSE(is_open(paper_defaults()));
  EXPECT_TRUE(is_open(fast_defaults()));
  EXPECT_FALSE(is_open(chosen(fast(text(100000)))));
}

TEST_F(ChoicesTest, TheModelGrowsWithTimeAndWithItsData) {
  const std::string large = text(20'000'000);
  int64_t before = 0;
  for (const double minutes : {0.2, 2.5, 60.0}) {
    RunConfig config = fast(large);
    config.train.minutes = minutes;
    const int64_t parameters = cost_of(chosen(config).model).parameters;
    EXPECT_GT(parameters, before) << minutes;
    before = parameters;
  }
  RunConfig config = fast(text(200'000));
  config.train.minutes = 60;
  EXPECT_LE(cost_of(chosen(config).model).parameters, 600'000);
}

TEST_F(ChoicesTest, WhatIsNamedStays) {
  RunConfig config = fast(text(1'000'000));
  config.model.width = 96;
  config.model.pattern = "window:16";
  config.train.batch = 3;
  config = chosen(config);
  EXPECT_EQ(config.model.width, 96);
  EXPECT_EQ(config.model.pattern, "window:16");
  EXPECT_EQ(config.train.batch, 3);
  EXPECT_EQ(config.model.width % config.model.heads, 0);
  config = fast(text(1'000'000));
  config.model.heads = 2;
  EXPECT_EQ(chosen(config).model.width, 128);
}

TEST_F(ChoicesTest, WhatIsNamedIsChecked) {
  const auto refusal = [&](const auto& change) -> std::string {
    RunConfig config = fast(text(1000000));
    change(config.model);
    try {
      chosen(config);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(refusal([](ModelConfig& model) { model.width = 128, model.heads = 3; }),
              HasSubstr("model.heads = 3 does not divide model.width = 128"));
  EXPECT_THAT(refusal([](ModelConfig& model) { model.convolution = 3; }),
              HasSubstr("model.convolution = 3, must be 4"));
  EXPECT_EQ(refusal([](ModelConfig& model) { model.convolution = 4; }), "no error");
}

TEST_F(ChoicesTest, BatchesAreWholeMicroBatches) {
  RunConfig config = fast(text(1'000'000));
  config.train.micro_batch = 3;
  EXPECT_EQ(chosen(config).train.batch % 3, 0);
}

TEST_F(ChoicesTest, LongContextsOfTextBeginShort) {
  RunConfig config = fast(text(1'000'000));
  config.model.context = 12288;
  EXPECT_EQ(chosen(config).train.context_schedule, "1024 until 0.1; 3072 until 0.7");
  config.model.context = 5120;
  EXPECT_EQ(chosen(config).train.context_schedule, "1024 until 0.1; 1280 until 0.7");
  config.model.context = 2048;
  EXPECT_EQ(chosen(config).train.context_schedule, "");
}

TEST_F(ChoicesTest, ShortDataGetAShortContext) {
  for (const int64_t bytes : {400, 2000, 30000}) {
    const RunConfig config = chosen(fast(text(bytes)));
    EXPECT_LE(config.model.context, bytes / 20) << bytes;
    EXPECT_GE(config.model.context, 16) << bytes;
  }
}

TEST_F(ChoicesTest, WhateverFollowsFits) {
  for (const int64_t bytes : {2000, 50000, 3'000'000})
    for (const double minutes : {0.1, 3.0, 240.0})
      for (const char* kind : {"text", "audio"}) {
        RunConfig config = fast(text(bytes));
        const Splits splits = open_splits([&] {
          DataConfig data = config.data;
          data.kind = "text";
          return data;
        }());
        config.data.kind = kind;
        config.train.minutes = minutes;
        choose_shape(config, splits);
        EXPECT_NO_THROW(config.check()) << kind << " of " << bytes << " bytes, " << minutes << " minutes";
        EXPECT_GE(config.train.batch, 1);
      }
}

TEST_F(ChoicesTest, TheKindFollowsFromMostFiles) {
  EXPECT_EQ(kind_of_data(text(1000)), "text");
  const std::string sound = folder_ / "sound.wav", picture = folder_ / "picture.png";
  std::ofstream(sound) << "RIFF____WAVEfmt ";
  std::ofstream(picture) << "\x89PNG\r\n\x1A\n";
  EXPECT_EQ(kind_of_data(sound), "audio");
  EXPECT_EQ(kind_of_data(picture), "image");
  std::ofstream(folder_ / "film.avi") << "RIFF____AVI LIST";
  EXPECT_EQ(kind_of_data(folder_ / "film.avi"), "text");
}

TEST_F(ChoicesTest, ARunKeepsPlainValues) {
  RunConfig config = fast(text(100000));
  const std::string run = folder_ / "run";
  PreparedRun prepared({run, config}, {}, {});
  EXPECT_THAT(prepared.chosen(), HasSubstr("model.context = 256"));
  EXPECT_THAT(prepared.chosen(), HasSubstr("data.kind = \"text\""));
  prepared.commit();
  const RunConfig saved = read_run_config(run);
  EXPECT_FALSE(is_open(saved));
  EXPECT_EQ(changes_of(saved, prepared.config()), "");
}

}  // namespace
}  // namespace longstride
