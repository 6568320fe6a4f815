// Models in compressed files: what anybody may write into them is explained by the file or refused.
#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/compress/codec.h"
#include "longstride/model/parameters.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

class Memory : public ByteSink {
 public:
  using ByteSink::write;
  void write(const void* data, int64_t count) override {
    const auto* begin = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), begin, begin + count);
  }
  std::vector<uint8_t> bytes;
};

class EmbeddedModelTest : public testing::Test {
 protected:
  EmbeddedModelTest() {
    model_.context = 64;
    model_.layers = 2;
    model_.heads = 2;
    model_.width = 16;
    model_.pattern = "dense";
    model_.positions = "rotary";
    compute_.device = "cpu";
    compute_.precision = "f32";
  }
  // A file's header with a model of `weights_of` that says of itself what `model_` says.
  CompressedHeader header(ModelConfig weights_of) {
    const std::vector<ParameterSpec> table = parameter_table(weights_of);
    const ParameterStore store(table, {}, DType::f32);
    store.zero();
    memory_ = {};
    write_safetensors(memory_, store.named(table, ""));
    FieldList fields;
    fields.section("model");
    model_.fields(fields);
    CompressedHeader header;
    header.kind = "text";
    header.bytes = header.context = model_.context;
    header.streams = header.frame_bytes = 1;
    header.precision = "f32";
    header.model_config = to_toml(fields, false);
    header.model_weights = memory_.bytes;
    header.model = embedded_digest(header, "x.lsc");
    return header;
  }
  std::string refusal(const CompressedHeader& header) {
    return message_of<Error>([&] { load_embedded_model(header, "x.lsc", compute_); });
  }

  ModelConfig model_;
  ComputeConfig compute_;
  Memory memory_;
};

TEST_F(EmbeddedModelTest, IsTheModelThatWasPutIn) {
  const CompressedHeader from = header(model_);
  const LoadedModel loaded = load_embedded_model(from, "x.lsc", compute_);
  EXPECT_EQ(loaded.digest(), from.model);
  EXPECT_EQ(loaded.config().model.width, 16);
  Codec codec(loaded, from, {.file = "x.lsc", .run = "the model in it"});
  EXPECT_LE(codec.bytes(), embedded_decoder_room(from));
  // Only the probe of the decoder is missing in this header, so that it was allocated and run.
  EXPECT_THAT(message_of<Error>([&] { codec.make_coder(); }), HasSubstr("does not reproduce"));
}

// A few bytes that name a thousand million positions: the tables of a decoder would follow from the number.
TEST_F(EmbeddedModelTest, PositionsThatTheFileDoesNotExplainTakeNothing) {
  const ModelConfig small = model_;
  for (const char* pattern : {"dense", "fixed:128,32", "block:5+stride:11"}) {
    model_.context = int64_t{1} << 30;
    model_.pattern = pattern;
    const CompressedHeader from = header(small);
    const auto begun = std::chrono::steady_clock::now();
    const LoadedModel loaded = load_embedded_model(from, "x.lsc", compute_);
    const Codec codec(loaded, from, {.file = "x.lsc", .run = "the model in it"});
    EXPECT_GT(codec.bytes(), embedded_decoder_room(from)) << pattern;
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20)) << pattern;
  }
}

TEST_F(EmbeddedModelTest, ShapesThatTheWeightsDoNotHaveAreRefusedBeforeAnythingIsAllocated) {
  const ModelConfig small = model_;
  model_.layers = 100'000;
  EXPECT_THAT(refusal(header(small)), HasSubstr("the model in x.lsc: its model has 100000 layers"));
  model_ = small;
  model_.width = 1 << 20;
  EXPECT_THAT(refusal(header(small)), HasSubstr("tensor 'embedding.token' is f32 (256, 16)"));
  model_ = small;
  model_.feed_forward = 1 << 20;
  EXPECT_THAT(refusal(header(small)), HasSubstr("feed_forward.up.weight"));
  model_ = small;
  model_.positions = "paper";
  model_.position_axes = {64};
  EXPECT_THAT(refusal(header(small)), HasSubstr("no tensor 'embedding.position.0'"));
  model_ = small;
  model_.layers = 1;
  EXPECT_THAT(refusal(header(small)), HasSubstr("too many"));
}

TEST_F(EmbeddedModelTest, AConfigThatIsNoneIsRefused) {
  CompressedHeader from = header(model_);
  for (const char* config : {"[model", "[data]\npath = 'x'", "[model]\nlayer = 2", "[model]\nwidth = 'a'",
                             "[model]\npattern = 'dense:9'", "\x01"}) {
    from.model_config = config;
    EXPECT_THAT(refusal(from), HasSubstr("the model in x.lsc")) << config;
  }
  from = header(model_);
  from.model_weights = from.model_weights.first(100);
  EXPECT_THAT(refusal(from), HasSubstr("the model in x.lsc is not a sound safetensors file"));
  from.model_weights = {};
  EXPECT_THAT(refusal(from), HasSubstr("too few for a header"));
}

}  // namespace
}  // namespace longstride
