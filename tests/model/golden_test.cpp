// Losses and gradients of tiny models written in PyTorch straight from the paper's formulas; see
// golden/make_golden.py.
#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "longstride/base/toml.h"
#include "longstride/checkpoint/safetensors.h"
#include "longstride/model/reference.h"
#include "longstride/model/transformer.h"
#include "longstride/verify/check.h"

namespace longstride {
namespace {

template <class T, class From = T>
std::vector<T> values_of(const Tensor& tensor) {
  const From* data = tensor.as<From>();
  return {data, data + tensor.count()};
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  Golden() : file_(std::string(LONGSTRIDE_GOLDEN_FOLDER) + "/" + GetParam() + ".safetensors") {
    FieldList fields;
    config_.fields(fields);
    read_toml_text(file_.metadata().at("model"), file_.path(), fields);
    config_.check();
    table_ = parameter_table(config_);
    batch_ = file_.find("tokens").shape[0];
  }

  SafetensorsFile file_;
  ModelConfig config_;
  std::vector<ParameterSpec> table_;
  int64_t batch_ = 0;
};

// Gradients are stored in single precision, losses in double.
TEST_P(Golden, TheReferenceAgreesToTheFilesPrecision) {
  reference::Parameters<double> weights;
  for (const ParameterSpec& spec : table_)
    weights.push_back(values_of<double, float>(file_.find("weights." + spec.name)));
  const std::vector<uint8_t> tokens = values_of<uint8_t>(file_.find("tokens"));
  reference::Model<double> model(config_, weights, {.batch = batch_});
  const std::vector<double> losses = model.forward(tokens);
  const std::vector<double> golden = values_of<double>(file_.find("losses"));
  ASSERT_EQ(losses.size(), golden.size());
  for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], golden[i], 1e-12);

  const reference::Parameters<double> gradients =
      model.backward(tokens, 1.0 / static_cast<double>(tokens.size()));
  for (size_t i = 0; i < table_.size(); ++i) {
    const auto rounded = values_of<float>(file_.find("gradients." + table_[i].name));
    EXPECT_LT(verify::relative_error(rounded, gradients[i]), 1e-7) << table_[i].name;
  }
}

TEST_P(Golden, TheFastModelAgrees) {
  const ParameterStore weights(table_, {}, DType::f32), gradients(table_, {}, DType::f32);
  load_into(file_, "weights.", weights.named(table_, ""));
  std::vector<uint8_t> tokens = values_of<uint8_t>(file_.find("tokens"));
  for (const bool recompute : {false, true}) {
    gradients.zero();
    std::vector<float> losses(tokens.size(), std::numeric_limits<float>::quiet_NaN());
    Transformer model(config_, {.batch = batch_, .training = true, .recompute = recompute});
    model.forward_backward(
        by_role(config_, weights, {}), Tensor(tokens.data(), DType::u8, {batch_, config_.context}),
        {.scale = 1.0f / static_cast<float>(tokens.size())},
        Tensor(losses.data(), DType::f32, {batch_, config_.context}), by_role(config_, gradients, {}));
    EXPECT_LT(verify::relative_error(losses, values_of<double>(file_.find("losses"))), 1e-6);
    for (size_t i = 0; i < table_.size(); ++i) {
      const auto golden = values_of<double, float>(file_.find("gradients." + table_[i].name));
      EXPECT_LT(verify::relative_error(values_of<float>(gradients[i]), golden), 5e-6) << table_[i].name;
      // A gradient of zeros would be no test.
      EXPECT_GT(*std::max_element(golden.begin(), golden.end()), 1e-4) << table_[i].name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Golden,
                         testing::Values("fixed_merged", "strided_interleaved", "per_head",
                                         "rotary_normalised", "rotary_grid", "mixed_values", "convolved"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace longstride
