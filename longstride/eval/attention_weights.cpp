#include "longstride/eval/attention_weights.h"

#include <algorithm>
#include <cmath>

#include "longstride/base/check.h"
#include "longstride/base/threads.h"

namespace longstride {

namespace {

// Queries and keys of one layer, (N, H, D) f32.
struct Rows {
  std::vector<float> queries, keys;
  int64_t heads = 0, width = 0;
  const float* query(int64_t position, int64_t head) const {
    return queries.data() + (position * heads + head) * width;
  }
  const float* key(int64_t position, int64_t head) const {
    return keys.data() + (position * heads + head) * width;
  }
};

Rows rows_of_layer(Transformer& model, const ModelParameters& parameters, std::span<const uint8_t> bytes,
                   int64_t wanted) {
  const Device device = model.plan().device;
  const auto count = static_cast<int64_t>(bytes.size());
  // A copy to the model's device; nothing writes to the bytes.
  const Tensor given(const_cast<uint8_t*>(bytes.data()), DType::u8, {1, count});
  const Buffer memory(device, count);
  const Tensor tokens(memory.data(), DType::u8, {1, count}, device.kind);
  copy(given, tokens);
  Rows rows;
  model.prefill(parameters, tokens, [&](int64_t layer, const LayerRows& of_layer) {
    if (layer != wanted) return;
    rows.queries = floats_of(of_layer.queries);
    rows.keys = floats_of(of_layer.keys);
    rows.heads = of_layer.queries.shape[2], rows.width = of_layer.queries.shape[3];
  });
  return rows;
}

struct Key {
  int64_t position;
  double weight;
};

// Softmax over the keys that the pattern allows; empty if there is none.
void weigh(const Rows& rows, const Pattern& pattern, int64_t head, int64_t query, std::vector<Key>& keys) {
  keys.clear();
  const float* q = rows.query(query, head);
  const double scale = 1 / std::sqrt(static_cast<double>(rows.width));
  double most = -INFINITY;
  for (int64_t position = 0; position <= query; ++position) {
    if (!pattern.allows(query, position)) continue;
    const float* k = rows.key(position, head);
    double score = 0;
    for (int64_t i = 0; i < rows.width; ++i) score += static_cast<double>(q[i]) * static_cast<double>(k[i]);
    keys.push_back({position, score * scale});
    most = std::max(most, score * scale);
  }
  double sum = 0;
  for (Key& key : keys) sum += key.weight = std::exp(key.weight - most);
  for (Key& key : keys) key.weight /= sum;
}

class HeadSums {
 public:
  HeadSums(const Pattern& pattern, int64_t positions, int64_t cells)
      : pattern_(pattern), positions_(positions), cells_(cells) {
    result_.pattern = to_string(pattern);
    for (int t = 0; t < pattern.count; ++t) {
      Pattern alone;
      alone.add(pattern.terms[t]);
      result_.terms.push_back({to_string(alone)});
    }
    result_.weights.resize(static_cast<size_t>(cells * cells));
    result_.allowed.resize(static_cast<size_t>(cells * cells));
  }

  // `share` of the row's queries is this one.
  void add(int64_t query, int64_t row, double share, std::span<const Key> keys) {
    if (keys.empty()) return;
    ++queries_;
    double entropy = 0;
    for (const Key& key : keys) {
      if (key.weight > 0) entropy -= key.weight * std::log2(key.weight);
      result_.distance += key.weight * static_cast<double>(query - key.position);
      if (key.position == query) result_.itself += key.weight;
      if (key.position == 0) result_.beginning += key.weight;
      result_.terms[first_term(query, key.position)].weight += key.weight;
      const auto cell = static_cast<size_t>(row * cells_ + key.position * cells_ / positions_);
      result_.weights[cell] += static_cast<float>(share * key.weight);
      result_.allowed[cell] = 1;
    }
    result_.keys += static_cast<double>(keys.size());
    result_.effective += std::exp2(entropy);
  }

  HeadWeights take() {
    if (queries_ == 0) return std::move(result_);
    for (double* sum :
         {&result_.keys, &result_.effective, &result_.distance, &result_.itself, &result_.beginning})
      *sum /= static_cast<double>(queries_);
    for (HeadWeights::OfTerm& term : result_.terms) term.weight /= static_cast<double>(queries_);
    return std::move(result_);
  }

 private:
  size_t first_term(int64_t query, int64_t key) const {
    int t = 0;
    while (!pattern_.terms[t].allows(query, key)) ++t;
    return static_cast<size_t>(t);
  }

  Pattern pattern_;
  int64_t positions_, cells_, queries_ = 0;
  HeadWeights result_;
};

}  // namespace

LayerWeights attention_weights(Transformer& model, const ModelParameters& parameters,
                               std::span<const uint8_t> bytes, int64_t layer, int64_t cells) {
  const ModelConfig& config = model.config();
  LONGSTRIDE_CHECK(layer >= 0 && layer < config.layers, "layer {} of a model with {} layers", layer + 1,
                   config.layers);
  LONGSTRIDE_CHECK(std::ssize(bytes) == config.context, "a window of {} bytes, the model's context is {}",
                   bytes.size(), config.context);
  LONGSTRIDE_CHECK(cells >= 1, "a map of {} cells", cells);
  const Rows rows = rows_of_layer(model, parameters, bytes, layer);
  LayerWeights result;
  result.layer = layer, result.positions = config.context;
  result.cells = std::min(cells, config.context);
  // So many queries of each row of the map, evenly spaced.
  const int64_t of_row = std::max<int64_t>(1, kMostQueries / result.cells);
  result.heads.resize(static_cast<size_t>(config.heads));
  for (int64_t row = 0; row < result.cells; ++row) {
    const int64_t begin = row * config.context / result.cells,
                  end = (row + 1) * config.context / result.cells;
    result.queries += std::min(of_row, end - begin);
  }
  parallel_for(config.heads, [&](int64_t head) {
    const Pattern pattern = config.schedule().layer(layer).for_head(head, config.heads);
    HeadSums sums(pattern, config.context, result.cells);
    std::vector<Key> keys;
    for (int64_t row = 0; row < result.cells; ++row) {
      const int64_t begin = row * config.context / result.cells,
                    count = (row + 1) * config.context / result.cells - begin,
                    looked_at = std::min(of_row, count);
      for (int64_t i = 0; i < looked_at; ++i) {
        const int64_t query = begin + (2 * i + 1) * count / (2 * looked_at);
        weigh(rows, pattern, head, query, keys);
        sums.add(query, row, 1 / static_cast<double>(looked_at), keys);
      }
    }
    result.heads[static_cast<size_t>(head)] = sums.take();
  });
  return result;
}

}  // namespace longstride
