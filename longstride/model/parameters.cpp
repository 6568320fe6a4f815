#include "longstride/model/parameters.h"

#include <algorithm>
#include <cmath>

#include "longstride/base/rng.h"
#include "longstride/base/threads.h"

namespace longstride {

int64_t ParameterSpec::count() const {
  int64_t total = 1;
  for (int64_t extent : shape) total *= extent;
  return total;
}

std::vector<ParameterSpec> parameter_table(const ModelConfig& config) {
  const bool paper = config.init == "paper";
  const auto deviation = [paper](int64_t fan_in) {
    const double d = static_cast<double>(fan_in);
    return paper ? 0.125 / std::sqrt(d) : std::sqrt(0.125 / d);
  };
  // Weights whose results are added to the residual stream are scaled down by the square root of the number
  // of summands.
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(config.layers));
  const int64_t d = config.width, ff = config.ff();

  std::vector<ParameterSpec> table;
  const auto add_table = [&](const std::string& name, int64_t rows, double std) {
    table.push_back({name, {rows, d}, 0, std, true, false});
  };
  const auto add_norm = [&](const std::string& name) {
    table.push_back({name + ".gain", {d}, 1, 0, false, false});
    table.push_back({name + ".bias", {d}, 0, 0, false, false});
  };
  const auto add_linear = [&](const std::string& name, std::vector<int64_t> parts, int64_t in, double scale) {
    int64_t out = 0;
    for (int64_t rows : parts) out += rows;
    table.push_back({name + ".weight", {out, in}, 0, deviation(in) * scale, true, true, std::move(parts)});
    table.push_back({name + ".bias", {out}, 0, 0, false, false});
  };

  add_table("embedding.token", kVocabulary, deviation(d));
  table.push_back({"embedding.start", {d}, 0, deviation(d), false, false});
  const std::vector<int64_t> axes = config.position_tables();
  for (size_t axis = 0; axis < axes.size(); ++axis)
    add_table(fmt::format("embedding.position.{}", axis), axes[axis],
              deviation(d * static_cast<int64_t>(axes.size())));
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string block = fmt::format("blocks.{}.", layer);
    add_norm(block + "norm1");
    // Queries, keys and values are matrices of their own.
    add_linear(block + "attention.qkv", {config.qk(), config.qk(), d}, d, 1);
    add_linear(block + "attention.projection", {d}, d, residual);
    add_norm(block + "norm2");
    add_linear(block + "feed_forward.up", {ff}, d, 1);
    add_linear(block + "feed_forward.down", {d}, ff, residual);
  }
  add_norm("final_norm");
  table.push_back({"output.weight", {kVocabulary, d}, 0, 0, true, true});
  // These come last, so that a seed draws all others as it does without them. At zero they have no effect at
  // first.
  if (config.convolves())
    for (int64_t layer = 0; layer < config.layers; ++layer)
      table.push_back({fmt::format("blocks.{}.feed_forward.convolution", layer),
                       {config.convolution, d},
                       0,
                       0,
                       false,
                       false});
  return table;
}

int64_t count_parameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const ParameterSpec& spec : parameter_table(config)) total += spec.count();
  return total;
}

namespace {
// Lays the store out in an arena. Planning and making a store both go through here.
std::vector<Tensor> lay_out(const std::vector<ParameterSpec>& table, DType dtype, ParameterStore::Which which,
                            ParameterRange range, Arena& arena) {
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < table.size(); ++i) {
    const ParameterSpec& spec = table[i];
    if (!range.has(i) || (which == ParameterStore::Which::products && !spec.product) ||
        (which == ParameterStore::Which::without_muon && !spec.muon_rows.empty()))
      tensors.emplace_back();
    else if (spec.shape.size() == 1)
      tensors.push_back(arena.allocate(dtype, {spec.shape[0]}));
    else
      tensors.push_back(arena.allocate(dtype, {spec.shape[0], spec.shape[1]}));
  }
  return tensors;
}
}  // namespace

int64_t ParameterStore::bytes(const std::vector<ParameterSpec>& table, DType dtype, Which which,
                              ParameterRange range) {
  Arena plan = Arena::measuring({});
  lay_out(table, dtype, which, range, plan);
  return plan.peak();
}

ParameterStore::ParameterStore(const std::vector<ParameterSpec>& table, Device device, DType dtype,
                               Which which, ParameterRange range)
    : arena_(device, bytes(table, dtype, which, range)),
      tensors_(lay_out(table, dtype, which, range, arena_)) {
  for (const Tensor& tensor : tensors_)
    if (tensor && !flat_) flat_ = Tensor(tensor.data, dtype, {arena_.used() / size_of(dtype)}, tensor.device);
}

int64_t ParameterStore::offset(size_t index) const {
  return (static_cast<const char*>(tensors_[index].data) - static_cast<const char*>(flat_.data)) /
         size_of(flat_.dtype);
}

void ParameterStore::zero() const {
  if (flat_) fill_zero(flat_);
}

std::vector<NamedTensor> ParameterStore::named(const std::vector<ParameterSpec>& table,
                                               const std::string& prefix) const {
  std::vector<NamedTensor> result;
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (tensors_[i]) result.push_back({prefix + table[i].name, tensors_[i]});
  return result;
}

void initialise(const std::vector<ParameterSpec>& table, uint64_t seed, const ParameterStore& weights) {
  for (size_t i = 0; i < table.size(); ++i) {
    const ParameterSpec& spec = table[i];
    const RandomStream random{seed, random_stream::kInitialise, static_cast<uint32_t>(i)};
    const int64_t count = spec.count();
    const bool on_cpu = weights[i].device == DeviceKind::cpu;
    std::vector<float> drawn(on_cpu ? 0 : count);
    float* w = on_cpu ? weights[i].as<float>() : drawn.data();
    constexpr int64_t kPiece = 4096;
    parallel_for((count + kPiece - 1) / kPiece, [&](int64_t piece) {
      for (int64_t e = piece * kPiece; e < std::min(count, (piece + 1) * kPiece); ++e)
        w[e] = static_cast<float>(spec.mean + (spec.deviation > 0 ? spec.deviation * random.normal(e) : 0.0));
    });
    if (!on_cpu) copy(Tensor(w, DType::f32, {count}), weights[i]);
  }
}

ModelParameters by_role(const ModelConfig& config, const ParameterStore& store,
                        const ParameterStore& products) {
  ModelParameters p;
  size_t next = 0;
  // Walks the table in its order; takes a product's weight from the products' store if there is one.
  const auto plain = [&] { return store[next++]; };
  const auto product = [&] {
    const size_t index = next++;
    return products.empty() ? store[index] : products[index];
  };
  p.embedding.token = plain();
  p.embedding.start = plain();
  for (size_t axis = 0; axis < config.position_tables().size(); ++axis) p.embedding.axes.push_back(plain());
  p.embedding.shift = config.positions == "paper" ? PositionShift::before : PositionShift::after;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    BlockParameters b;
    b.norm1_gain = plain(), b.norm1_bias = plain();
    b.qkv_weight = product(), b.qkv_bias = plain();
    b.projection_weight = product(), b.projection_bias = plain();
    b.norm2_gain = plain(), b.norm2_bias = plain();
    b.up_weight = product(), b.up_bias = plain();
    b.down_weight = product(), b.down_bias = plain();
    p.blocks.push_back(b);
  }
  p.final_gain = plain(), p.final_bias = plain();
  p.output_weight = product();
  if (config.convolves())
    for (BlockParameters& b : p.blocks) b.convolution = plain();
  return p;
}

}  // namespace longstride
