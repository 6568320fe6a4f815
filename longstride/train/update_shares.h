// Which of several ranks moves which parameters and keeps their moments and averages, where ranks share that (ZeRO-1:
// Rajbhandari and others, 2020, arXiv 1910.02054). A share is a run of the parameter table. Work is shared evenly: Muon's
// matrices count for more than what Adam moves.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/model/parameters.h"

namespace longstride {

class UpdateShares {
 public:
  // One rank has everything.
  explicit UpdateShares(const std::vector<ParameterSpec>& table);
  // `muon`: whether Muon moves what it may. Shares may be empty where there are more ranks than parameters.
  UpdateShares(const std::vector<ParameterSpec>& table, bool muon, int ranks, int rank);

  int ranks() const { return static_cast<int>(first_.size()) - 1; }
  int rank() const { return rank_; }
  bool is_shared() const { return ranks() > 1; }
  // The parameters of a rank.
  ParameterRange of(int rank) const;
  ParameterRange own() const { return of(rank_); }
  // Where each rank's elements begin in the flat buffer of `store`, which holds all parameters, and at last its end.
  std::vector<int64_t> begins(const ParameterStore& store) const;

 private:
  std::vector<size_t> first_;  // ranks + 1
  int rank_ = 0;
};

}  // namespace longstride
