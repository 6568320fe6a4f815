// The parameters of a model. One table gives name, shape, initialisation and decay of each. Stores hold one
// value for each element: weights, gradients, the optimizer's moments, averaged weights.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "longstride/checkpoint/safetensors.h"
#include "longstride/device/memory.h"
#include "longstride/model/config.h"
#include "longstride/ops/embedding.h"

namespace longstride {

struct ParameterSpec {
  std::string name;            // "blocks.0.attention.qkv.weight"
  std::vector<int64_t> shape;  // (out, in) for weights
  double mean = 0;
  double deviation = 0;  // of the initial normal distribution
  bool decay = false;    // weight decay applies: matrices and tables
  bool product =
      false;  // multiplied by activations in a matrix product, so kept in the product's precision too
  // For a matrix of a block that Muon may move (ops/muon.h): it may consist of several matrices, one below
  // the other, which are made orthogonal separately; these are their numbers of rows. Else empty.
  std::vector<int64_t> muon_rows = {};

  int64_t count() const;
};

// Every parameter in the order in which stores and checkpoints hold them.
// Source: paper section 6 as printed, or the released code; see docs/numerics.md.
std::vector<ParameterSpec> parameter_table(const ModelConfig& config);
int64_t count_parameters(const ModelConfig& config);

// Parameters [first, end) of a table.
struct ParameterRange {
  size_t first = 0, end = std::numeric_limits<size_t>::max();
  bool has(size_t index) const { return index >= first && index < end; }
};

// One tensor for each parameter, in one buffer.
class ParameterStore {
 public:
  enum class Which { all, products, without_muon };
  ParameterStore() = default;
  // Zeros of `dtype`: for all parameters of the range, only for those of matrix products, or only for those
  // that Muon may not move. The other tensors are empty.
  ParameterStore(const std::vector<ParameterSpec>& table, Device device, DType dtype,
                 Which which = Which::all, ParameterRange range = {});
  static int64_t bytes(const std::vector<ParameterSpec>& table, DType dtype, Which which = Which::all,
                       ParameterRange range = {});

  const Tensor& operator[](size_t index) const { return tensors_[index]; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  // The whole buffer, gaps between tensors included. Stores of the same table, Which and range have the same
  // layout.
  const Tensor& flat() const { return flat_; }
  // Where a tensor begins in flat(). The tensor must not be empty.
  int64_t offset(size_t index) const;
  bool empty() const { return tensors_.empty(); }
  void zero() const;
  // All tensors with `prefix` before their names, for checkpoints.
  std::vector<NamedTensor> named(const std::vector<ParameterSpec>& table, const std::string& prefix) const;

 private:
  Arena arena_ = Arena::measuring({});
  std::vector<Tensor> tensors_;
  Tensor flat_;
};

// Draws the initial weights: parameter i, element e is element e of the stream (seed, kInitialise, i).
void initialise(const std::vector<ParameterSpec>& table, uint64_t seed, const ParameterStore& weights);

// The parameters by their role. Weights of products may come from another store (bf16) than the rest.
struct BlockParameters {
  Tensor norm1_gain, norm1_bias;
  Tensor qkv_weight, qkv_bias;                // (2 * qk + d, d): queries, keys, values
  Tensor projection_weight, projection_bias;  // (d, d)
  Tensor norm2_gain, norm2_bias;
  Tensor up_weight, up_bias;      // (ff, d)
  Tensor down_weight, down_bias;  // (d, ff)
  Tensor convolution;             // (taps, d) before the feed-forward; empty without model.convolution
};

struct ModelParameters {
  EmbeddingTables embedding;
  std::vector<BlockParameters> blocks;
  Tensor final_gain, final_bias;
  Tensor output_weight;  // (256, d)
};

// `products` may be empty: then all come from `store`.
ModelParameters by_role(const ModelConfig& config, const ParameterStore& store,
                        const ParameterStore& products);

}  // namespace longstride
