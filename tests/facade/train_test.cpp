// Training on bytes in memory through longstride.h.
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <longstride/longstride.h>

#include "tests/facade/small_model.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

std::string refusal(const std::vector<std::string>& more, const std::string& text = counting_text(2000)) {
  return message_of<Error>([&] { train(bytes_of(text), {.settings = small_settings(more)}); });
}

TEST(FacadeTrain, LearnsAndTellsHowFarItIs) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  std::vector<TrainProgress> seen;
  TrainOptions options;
  options.settings = small_settings();
  options.after_step = [&](const TrainProgress& progress) {
    seen.push_back(progress);
    return true;
  };
  const std::string text = counting_text(2000);
  const Model model = train(bytes_of(text), options);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  ASSERT_EQ(seen.size(), 40u);
  EXPECT_EQ(seen.back().step, 40);
  EXPECT_EQ(seen.back().done, 1);
  EXPECT_GT(seen.front().bits, 7);
  EXPECT_LT(model.bits_per_byte(bytes_of(text)), 3);
  EXPECT_EQ(model.step(), 40);
}

TEST(FacadeTrain, TheModelIsThatOfTheSavedRun) {
  const TemporaryFolder folder;
  const Model trained = train_small(folder / "run");
  const Model loaded(folder / "run", {.device = "cpu", .precision = "f32"});
  const std::string text = counting_text(20);
  EXPECT_EQ(trained.logits(bytes_of(text).first(50)), loaded.logits(bytes_of(text).first(50)));
  EXPECT_EQ(trained.compress(bytes_of(text)), loaded.compress(bytes_of(text)));
}

TEST(FacadeTrain, EndsWhenTheCallbackSaysSo) {
  TrainOptions options;
  options.settings = small_settings();
  options.after_step = [](const TrainProgress& progress) { return progress.step < 3; };
  EXPECT_EQ(train(bytes_of(counting_text(500)), options).step(), 3);
}

TEST(FacadeTrain, AnExceptionOfTheCallbackComesOutAsItIs) {
  const TemporaryFolder folder;
  struct Own : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  TrainOptions options;
  options.settings = small_settings();
  options.run = folder / "run";
  options.after_step = [](const TrainProgress&) -> bool { throw Own("mine"); };
  const std::string text = counting_text(500);
  EXPECT_EQ(message_of<Own>([&] { train(bytes_of(text), options); }), "mine");
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
  options.after_step = [](const TrainProgress&) -> bool { throw 7; };
  EXPECT_THROW(train(bytes_of(text), options), int);
}

TEST(FacadeTrain, OnFilesIsWhatTheProgramTrains) {
  const TemporaryFolder folder;
  write_bytes(folder / "data.txt", counting_text(3000));
  write_bytes(folder / "small.toml", "[data]\npath = \"" + (folder / "data.txt") +
                                         "\"\nsplit = [2000, 500]\n[train]\nvalidate_every = 20\n");
  TrainOptions options;
  options.config = folder / "small.toml";
  options.settings = small_settings();
  options.run = folder / "run";
  std::vector<TrainProgress> seen;
  options.after_step = [&](const TrainProgress& progress) {
    seen.push_back(progress);
    return progress.step < 25;
  };
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EXPECT_EQ(train_on_files(options).step(), 20);  // the best by validation
  ASSERT_EQ(seen.size(), 25u);
  EXPECT_FALSE(seen[0].validation_bits.has_value());
  EXPECT_TRUE(seen[19].validation_bits.has_value());
  EXPECT_GT(seen[19].gradient_norm, 0);
  EXPECT_THAT(message_of<Error>([&] { train_on_files(options); }), HasSubstr("already holds a run"));
  // It goes on where it was ended, and an exception leaves what was learnt.
  options.go_on = true;
  options.after_step = [&](const TrainProgress& progress) -> bool {
    seen.push_back(progress);
    if (progress.step == 30) throw 7;
    return true;
  };
  EXPECT_THROW(train_on_files(options), int);
  EXPECT_EQ(seen[25].step, 26);
  EXPECT_EQ(Model(folder / "run", {.device = "cpu", .step = 30}).step(), 30);
  options.after_step = {};
  std::vector<std::string> notes;
  options.note = [&](const std::string& line) { notes.push_back(line); };
  train_on_files(options);
  EXPECT_THAT(notes, testing::Contains(HasSubstr("resuming from step 30")));
  EXPECT_EQ(Model(folder / "run", {.device = "cpu", .step = 40}).step(), 40);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  options.settings = small_settings();
  options.config = "";
  options.run = folder / "other";
  EXPECT_THAT(message_of<Error>([&] { train_on_files(options); }), HasSubstr("data.path"));
  options.run = "";
  EXPECT_THAT(message_of<Error>([&] { train_on_files(options); }), HasSubstr("directory"));
}

TEST(FacadeTrain, ChoosesWhatIsOpen) {
  const std::string text = counting_text(3000);
  const Model model = train(bytes_of(text), {.settings = {"train.steps=1", "compute.device=cpu"}});
  EXPECT_GT(model.context(), 0);
  EXPECT_NE(model.pattern(), "");
}

TEST(FacadeTrain, LearnsPictures) {
  std::string pixels;
  for (int i = 0; i < 40 * 8 * 8; ++i) pixels += static_cast<char>(i % 8 * 30);
  const std::vector<std::string> settings = small_settings(
      {"data.kind=image", "data.image_height=8", "data.image_width=8", "data.image_channels=1"});
  const Model model = train(bytes_of(pixels), {.settings = settings});
  EXPECT_EQ(model.kind(), "image");
  EXPECT_LT(model.bits_per_byte(bytes_of(pixels)), 6);
  int drawn = 0;
  for ([[maybe_unused]] const uint8_t byte : model.generate(bytes_of(pixels).first(16))) ++drawn;
  EXPECT_EQ(drawn, 48);
  const auto picture = bytes_of(pixels).first(64);
  EXPECT_EQ(model.decompress(model.compress(picture)), std::vector<uint8_t>(picture.begin(), picture.end()));
  EXPECT_THAT(message_of<Error>([&] { model.compress(picture.first(9)); }),
              HasSubstr("a picture has 64 bytes"));
  EXPECT_THAT(message_of<Error>([&] { model.generate(picture); }), HasSubstr("nothing left to draw"));
  EXPECT_THAT(message_of<Error>([&] { model.generate({}, {.count = 65}); }),
              HasSubstr("a picture has 64 bytes"));
  EXPECT_THAT(message_of<Error>([&] { model.bits_per_byte(picture.first(9)); }), HasSubstr("records"));
  EXPECT_THAT(refusal({"data.kind=image"}), HasSubstr("data.image_height"));
}

TEST(FacadeTrain, RefusesBadSettings) {
  EXPECT_THAT(refusal({"model.contxt=64"}), HasSubstr("model.context"));
  EXPECT_THAT(refusal({"model.heads=3"}), HasSubstr("model.heads"));
  EXPECT_THAT(refusal({"nonsense"}), HasSubstr("nonsense"));
  EXPECT_THAT(refusal({"train.steps=many"}), HasSubstr("train.steps"));
  EXPECT_THAT(refusal({"data.path=my.txt"}), HasSubstr("reads no file"));
  EXPECT_THAT(refusal({"compute.instructions=avx2"}), HasSubstr("whole process"));
  EXPECT_THAT(refusal({"compute.precision=f16"}), HasSubstr("needs a GPU"));
  EXPECT_THAT(refusal({"model.pattern=fixed:16,4+blok:3"}),
              testing::AllOf(HasSubstr("model.pattern"), HasSubstr("did you mean 'block'"),
                             HasSubstr("\n  fixed:16,4+blok:3\n             ^^^^")));
  EXPECT_THAT(refusal({}, ""), HasSubstr("no bytes"));
  EXPECT_THAT(refusal({}, "few"), HasSubstr("less than model.context = 64"));
}

TEST(FacadeTrain, LeavesAFolderAloneThatHoldsSomething) {
  const TemporaryFolder folder;
  write_bytes(folder / "mine", "text");
  EXPECT_THAT(message_of<Error>([&] { train_small(folder.path()); }), HasSubstr("is not empty"));
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"mine"});
}

}  // namespace
}  // namespace longstride
