// Compares whole models with the scalar model in double precision: losses, every parameter's gradient, and
// the keys and values for a sampler. Also checks the equalities that training relies on.
#include <array>
#include <cstring>
#include <limits>

#include "longstride/model/reference.h"
#include "longstride/model/transformer.h"
#include "longstride/ops/adam.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/model_cases.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

// Losses, gradients, and keys and values of all layers.
template <class T>
struct Result {
  std::vector<T> losses, losses_without_dropout;
  reference::Parameters<T> gradients;
  std::vector<T> keys, values;
};

template <class T>
Result<T> run_reference(const ModelCase& c, const reference::Parameters<float>& weights,
                        const std::vector<uint8_t>& tokens, uint64_t seed, uint32_t step, DType products) {
  const reference::Parameters<T> converted = as<T>(weights);
  Result<T> result;
  reference::Model<T> model(c.config, converted, {c.batch, c.dropout, seed, step, products});
  result.losses = model.forward(tokens);
  result.gradients = model.backward(tokens, static_cast<T>(c.scale()));
  reference::Model<T> sure(c.config, converted, {c.batch, 0, seed, step, products});
  result.losses_without_dropout = sure.forward(tokens);
  const ModelConfig& config = c.config;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    for (int64_t row = 0; row < c.batch * config.context; ++row) {
      const T* qkv = sure.qkv(layer).data() + row * config.qkv();
      result.keys.insert(result.keys.end(), qkv + config.qk(), qkv + 2 * config.qk());
      result.values.insert(result.values.end(), qkv + 2 * config.qk(), qkv + config.qkv());
    }
  return result;
}

const float kNan = std::numeric_limits<float>::quiet_NaN();

void append(const Tensor& rows, std::vector<float>& values) {
  const std::vector<float> more = floats_of(rows);
  values.insert(values.end(), more.begin(), more.end());
}

// The model under test and its weights, on one device.
class Subject {
 public:
  Subject(Device device, const ModelCase& c)
      : case_(c), device_(device), table_(parameter_table(c.config)), weights_(table_, device, DType::f32) {
    if (c.product != DType::f32)
      products_ = ParameterStore(table_, device, c.product, ParameterStore::Which::products);
  }

  const std::vector<ParameterSpec>& table() const { return table_; }
  const ParameterStore& weights() const { return weights_; }
  void round_products() {
    for (size_t i = 0; i < table_.size(); ++i)
      if (!products_.empty() && products_[i]) run({device_, nullptr}, Convert{weights_[i], products_[i]});
  }

  // Losses and gradients of one training step, on a model that was used before, so that leftovers would
  // show.
  Result<float> train(bool recompute, std::vector<uint8_t>& tokens, uint64_t seed, uint32_t step) {
    Transformer model(case_.config, {device_, case_.product, case_.batch, true, recompute});
    const ModelParameters parameters = by_role(case_.config, weights_, products_);
    const ParameterStore gradients(table_, device_, DType::f32);
    const ModelParameters gradient_roles = by_role(case_.config, gradients, {});
    Result<float> result;
    for (uint32_t use = 0; use < 2; ++use) {
      gradients.zero();
      result.losses.assign(tokens.size(), kNan);
      const Tensor losses = floats(result.losses);
      model.forward_backward(
          parameters, bytes(tokens),
          {.scale = case_.scale(), .dropout = case_.dropout, .seed = seed, .step = step + 1 - use}, losses,
          gradient_roles);
      fetch(losses, result.losses);
    }
    for (size_t i = 0; i < table_.size(); ++i) {
      std::vector<float>& g = result.gradients.emplace_back(table_[i].count());
      copy(gradients[i], Tensor(g.data(), DType::f32, {table_[i].count()}));
    }
    return result;
  }

  // Losses without dropout, and keys and values.
  Result<float> infer(std::vector<uint8_t>& tokens) {
    Transformer model(case_.config, {device_, case_.product, case_.batch, false, false});
    const ModelParameters parameters = by_role(case_.config, weights_, products_);
    Result<float> result;
    model.prefill(parameters, bytes(tokens), [&](int64_t, const LayerRows& rows) {
      append(rows.keys, result.keys);
      append(rows.values, result.values);
    });
    result.losses_without_dropout.assign(tokens.size(), kNan);
    const Tensor losses = floats(result.losses_without_dropout);
    model.evaluate(parameters, bytes(tokens), losses);
    fetch(losses, result.losses_without_dropout);
    return result;
  }

 private:
  // Copies on the device, which the next call overwrites.
  Tensor bytes(std::vector<uint8_t>& v) { return put(v.data(), DType::u8, tokens_); }
  Tensor floats(std::vector<float>& v) { return put(v.data(), DType::f32, losses_); }
  Tensor put(void* data, DType dtype, Buffer& memory) {
    const Tensor on_cpu(data, dtype, {case_.batch, case_.config.context});
    if (memory.bytes() == 0) memory = Buffer(device_, on_cpu.bytes());
    const Tensor there(memory.data(), dtype, {case_.batch, case_.config.context}, device_.kind);
    copy(on_cpu, there);
    return there;
  }
  void fetch(const Tensor& losses, std::vector<float>& v) const {
    copy(losses, Tensor(v.data(), DType::f32, {case_.batch, case_.config.context}));
  }

  ModelCase case_;
  Device device_;
  std::vector<ParameterSpec> table_;
  ParameterStore weights_, products_;
  Buffer tokens_, losses_;
};

// The error is the number of elements whose bits differ. It must be 0.
Check same_bits(std::string name, const Result<float>& a, const Result<float>& b) {
  Check check{std::move(name), 0, 0};
  const auto count = [&](const std::vector<float>& x, const std::vector<float>& y) {
    for (size_t i = 0; i < x.size(); ++i) check.error += std::memcmp(&x[i], &y[i], sizeof(float)) != 0;
  };
  count(a.losses, b.losses);
  for (size_t i = 0; i < a.gradients.size(); ++i) count(a.gradients[i], b.gradients[i]);
  return check;
}

// The weights as the GPU's linear layers see them: biases in the compute dtype.
reference::Parameters<float> with_rounded_biases(reference::Parameters<float> weights,
                                                 const std::vector<ParameterSpec>& table, DType product) {
  for (size_t i = 1; i < weights.size(); ++i)
    if (table[i - 1].product && table[i].name.ends_with(".bias")) weights[i] = as_stored(weights[i], product);
  return weights;
}

void check_case(Device device, const ModelCase& c, uint64_t seed, std::vector<Check>& checks) {
  Subject subject(device, c);
  const reference::Parameters<float> weights =
      random_weights(c.config, subject.table(), subject.weights(), seed);
  subject.round_products();
  const RandomStream random{seed, random_stream::kBatch, 0};
  std::vector<uint8_t> tokens(c.batch * c.config.context);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint8_t>(random.block(i)[0]);
  const uint32_t step = 5;

  const Result<double> truth = run_reference<double>(c, weights, tokens, seed, step, DType::f32);
  const Result<float> naive = run_reference<float>(
      c, device.kind == DeviceKind::cuda ? with_rounded_biases(weights, subject.table(), c.product) : weights,
      tokens, seed, step, c.product);
  const Result<float> kept = subject.train(false, tokens, seed, step);
  const Result<float> recomputed = subject.train(true, tokens, seed, step);
  const Result<float> inferred = subject.infer(tokens);

  const std::string name = c.name();
  const auto add = [&](const std::string& what, const std::vector<float>& ours,
                       const std::vector<float>& plain, const std::vector<double>& reference,
                       double floor = 1e-6) {
    checks.push_back(compare(name + ": " + what, ours, plain, reference, floor));
  };
  // Where each of a few elements is rounded to eight bits, the largest error is a matter of luck, and the
  // naive computation's may be small by chance. Any of them may be off by half a unit in the last place.
  const double gradient_floor = c.product == DType::bf16 ? 0x1p-9 : c.product == DType::f16 ? 0x1p-12 : 1e-6;
  add("losses", kept.losses, naive.losses, truth.losses);
  for (size_t i = 0; i < weights.size(); ++i)
    add("gradient of " + subject.table()[i].name, kept.gradients[i], naive.gradients[i], truth.gradients[i],
        gradient_floor);
  add("evaluate", inferred.losses_without_dropout, naive.losses_without_dropout,
      truth.losses_without_dropout);
  add("keys", inferred.keys, naive.keys, truth.keys);
  add("values", inferred.values, naive.values, truth.values);
  checks.push_back(same_bits(name + ": bits of keeping and recomputing activations", kept, recomputed));
  checks.push_back(same_bits(name + ": bits of two runs", kept, subject.train(false, tokens, seed, step)));
  if (c.dropout == 0)
    checks.push_back({name + ": evaluate and training see the same losses",
                      relative_error(inferred.losses_without_dropout, as<double>(kept.losses)), 1e-6});
}

}  // namespace

std::vector<Check> check_model(Device device, Effort effort) {
  std::vector<Check> checks;
  uint64_t seed = 1;
  for (ModelCase c : model_cases(effort)) {
    check_case(device, c, seed++, checks);
    if (device.kind == DeviceKind::cpu || c.product != DType::bf16) continue;
    c.product = DType::f16;
    check_case(device, c, seed - 1, checks);
  }
  return checks;
}

}  // namespace longstride::verify
