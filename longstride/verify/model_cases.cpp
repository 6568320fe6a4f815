#include "longstride/verify/model_cases.h"

#include <cmath>
#include <initializer_list>
#include <utility>

#include "longstride/base/rng.h"

namespace longstride::verify {

std::string ModelCase::name() const {
  return fmt::format(
      "model {}, n {}, batch {}, {} layers, {} heads, width {}/{}/{}, {}/{}{}{}{}, dropout {}, {}",
      config.pattern.text(), config.context, batch, config.layers, config.heads, config.width, config.qk(),
      config.ff(), config.init, config.positions, config.qk_norm ? ", qk_norm" : "",
      config.value_residual > 0 ? fmt::format(", value_residual {}", config.value_residual) : "",
      config.convolves() ? ", convolution" : "", dropout, name_of(product));
}

namespace {

ModelConfig shape(std::string pattern, int64_t context, int64_t layers, int64_t heads, int64_t width) {
  ModelConfig config;
  config.pattern = std::move(pattern);
  config.context = context, config.layers = layers, config.heads = heads, config.width = width;
  return config;
}

}  // namespace

std::vector<ModelCase> model_cases(Effort effort) {
  std::vector<ModelCase> list;
  const auto add = [&](const ModelConfig& config, double dropout, std::initializer_list<DType> products) {
    for (DType product : products) list.push_back({config, 2, dropout, product});
  };
  ModelConfig merged = shape("fixed:8,2", 45, 2, 2, 16);
  add(merged, 0.3, {DType::f32, DType::bf16});

  ModelConfig interleaved = shape("stride:8,window:8", 45, 3, 4, 32);
  interleaved.qk_width = 16, interleaved.feed_forward = 64;
  interleaved.init = interleaved.positions = "released";
  add(interleaved, 0, {DType::f32, DType::bf16});

  ModelConfig per_head = shape("window:4|stride:4", 45, 2, 2, 24);
  per_head.position_axes = {3, 5, 3};
  add(per_head, 0.3, {DType::f32});

  ModelConfig spread = shape("spread-fixed:8,2", 45, 2, 4, 16);
  spread.init = "released";
  add(spread, 0, {DType::f32});

  ModelConfig rotary = shape("fixed:8,2", 45, 2, 2, 32);
  rotary.positions = "rotary", rotary.qk_norm = true, rotary.init = "released";
  add(rotary, 0.3, {DType::f32, DType::bf16});

  ModelConfig mixed = rotary;
  mixed.layers = 4, mixed.value_residual = 0.4;
  add(mixed, 0.3, {DType::f32, DType::bf16});

  ModelConfig convolved = shape("fixed:8,2", 45, 2, 2, 24);
  convolved.convolution = 4;
  add(convolved, 0.3, {DType::f32, DType::bf16});
  if (effort == Effort::quick) return list;

  // Channels that do not fill whole vectors, sequences shorter than the convolution, and all other features
  // too.
  convolved.feed_forward = 20, convolved.width = 36;
  add(convolved, 0, {DType::f32, DType::bf16});
  convolved.context = 3;
  add(convolved, 0, {DType::f32});
  mixed.convolution = 4;
  add(mixed, 0.3, {DType::f32, DType::bf16});
  mixed.convolution = 0;

  mixed.positions = "paper", mixed.qk_norm = false, mixed.qk_width = 20, mixed.width = 36;
  mixed.pattern = "window:4|stride:4";
  add(mixed, 0, {DType::f32, DType::bf16});
  mixed.layers = 1;
  add(mixed, 0, {DType::f32});

  rotary.qk_norm = false, rotary.qk_width = 20;
  add(rotary, 0, {DType::f32, DType::bf16});
  rotary.qk_norm = true, rotary.qk_width = 0, rotary.positions = "paper";
  add(rotary, 0, {DType::f32});
  ModelConfig picture = shape("stride:3,window:5", 45, 2, 2, 32);
  picture.positions = "rotary", picture.qk_norm = true, picture.position_axes = {3, 5, 3};
  add(picture, 0.1, {DType::f32, DType::bf16});

  add(spread, 0.3, {DType::bf16});
  merged.init = merged.positions = "released";
  add(merged, 0, {DType::f32});
  add(shape("dense", 33, 2, 1, 20), 0.1, {DType::f32, DType::bf16});
  add(shape("dense", 1, 2, 3, 12), 0, {DType::f32});
  add(shape("strided:11", 130, 3, 3, 48), 0.25, {DType::f32, DType::bf16});
  add(shape("window:7+prefix:3,previous-row:9+window:2", 100, 4, 2, 32), 0.5, {DType::f32});
  ModelConfig dilated = shape("dilated:5,6,summary:16,4,1+window:16", 201, 2, 4, 64);
  dilated.qk_width = 32, dilated.positions = "released";
  add(dilated, 0.05, {DType::f32, DType::bf16});
  // Contexts longer than one tile of the attention kernels.
  ModelConfig long_context = shape("fixed:32,8", 515, 2, 2, 32);
  long_context.feed_forward = 32;
  add(long_context, 0.2, {DType::f32, DType::bf16});
  list.back().batch = 1;
  return list;
}

reference::Parameters<float> random_weights(const ModelConfig& config,
                                            const std::vector<ParameterSpec>& table,
                                            const ParameterStore& store, uint64_t seed) {
  initialise(table, seed, store);
  reference::Parameters<float> weights;
  for (size_t i = 0; i < table.size(); ++i) {
    std::vector<float> w(table[i].count());
    const Tensor on_cpu(w.data(), DType::f32, {table[i].count()});
    copy(store[i], on_cpu);
    const RandomStream random{seed + 1, random_stream::kInitialise, static_cast<uint32_t>(i)};
    const double deviation =
        table[i].shape.size() == 1 ? 0.1 : 1 / std::sqrt(static_cast<double>(config.width));
    if (table[i].deviation == 0)
      for (int64_t e = 0; e < table[i].count(); ++e) w[e] += static_cast<float>(deviation * random.normal(e));
    copy(on_cpu, store[i]);
    weights.push_back(std::move(w));
  }
  return weights;
}

}  // namespace longstride::verify
