// What the heads of a trained layer look at: of one window of data the weights that attention gives its keys, as numbers
// for each head and as a coarse map.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "longstride/model/transformer.h"

namespace longstride {

// Means over the queries that were looked at and that see a key; weights of a query add up to 1.
struct HeadWeights {
  std::string pattern;
  double keys = 0;       // that a query may look at
  double effective = 0;  // 2 to the entropy of the weights: as many keys, if they had equal weights
  double distance = 0;   // positions from the query back to its keys, by weight
  double itself = 0;     // weight of the query's own position
  double beginning = 0;  // weight of the window's first position, where heads rest that find nothing
  struct OfTerm {
    std::string term;
    double weight = 0;  // through this term of the pattern; a key that two allow counts for the first
  };
  std::vector<OfTerm> terms;
  // (cells, cells): the weight that queries of a row give keys of a column, a mean over the row's queries; and
  // whether the pattern allows one of these pairs.
  std::vector<float> weights;
  std::vector<uint8_t> allowed;
};

struct LayerWeights {
  int64_t layer = 0;      // from 0
  int64_t positions = 0;  // of the window
  int64_t queries = 0;    // that were looked at
  int64_t cells = 0;      // along each side of the maps
  std::vector<HeadWeights> heads;
};

// Queries that are looked at if a window has more: the same number in each row of the map.
inline constexpr int64_t kMostQueries = 1024;

// Of the window `bytes`, as many as the model's context; `model` is planned for one sequence and not for training. Maps
// have `cells` (1 or more) rows, or one for each position if there are fewer. Throws Error for a layer that the model lacks.
LayerWeights attention_weights(Transformer& model, const ModelParameters& parameters,
                               std::span<const uint8_t> bytes, int64_t layer, int64_t cells);

}  // namespace longstride
