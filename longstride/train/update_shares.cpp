#include "longstride/train/update_shares.h"

#include "longstride/ops/muon.h"

namespace longstride {

namespace {

// Bytes of memory that the update of an element moves, with an average, and the FLOPs of Newton-Schulz that take as long
// as a byte does (H100: 800 TFLOP/s of them beside 3 TB/s).
constexpr double kBytesPerElement = 46, kFlopsPerByte = 270;

double cost_of(const ParameterSpec& spec, bool muon) {
  double cost = kBytesPerElement * static_cast<double>(spec.count());
  if (muon)
    for (const int64_t rows : spec.muon_rows)
      cost += newton_schulz_flops(NewtonSchulz::jordan, rows, spec.shape[1]) / kFlopsPerByte;
  return cost;
}

}  // namespace

UpdateShares::UpdateShares(const std::vector<ParameterSpec>& table) : first_{0, table.size()} {}

UpdateShares::UpdateShares(const std::vector<ParameterSpec>& table, bool muon, int ranks, int rank)
    : first_{0}, rank_(rank) {
  double all = 0, before = 0;
  for (const ParameterSpec& spec : table) all += cost_of(spec, muon);
  for (size_t i = 0; i < table.size(); ++i) {
    const double cost = cost_of(table[i], muon);
    // A parameter goes to the rank that most of its cost falls to.
    while (static_cast<int>(first_.size()) < ranks &&
           before + cost / 2 > all * static_cast<double>(first_.size()) / ranks)
      first_.push_back(i);
    before += cost;
  }
  first_.resize(static_cast<size_t>(ranks) + 1, table.size());
}

ParameterRange UpdateShares::of(int rank) const {
  const auto at = static_cast<size_t>(rank);
  return {first_[at], first_[at + 1]};
}

std::vector<int64_t> UpdateShares::begins(const ParameterStore& store) const {
  std::vector<int64_t> begins;
  for (const size_t first : first_)
    begins.push_back(first < store.tensors().size() ? store.offset(first) : store.flat().count());
  return begins;
}

}  // namespace longstride
