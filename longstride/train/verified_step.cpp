#include "longstride/train/verified_step.h"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/device/memory.h"
#include "longstride/model/parameters.h"

namespace longstride {

namespace {

// A copy in memory of the CPU.
class Copy {
 public:
  explicit Copy(const Tensor& from)
      : buffer_({}, from.bytes()), tensor_(buffer_.data(), from.dtype, {from.count()}, DeviceKind::cpu) {
    copy(from.reshaped({from.count()}), tensor_);
  }
  void give_back(const Tensor& to) const { copy(tensor_, to.reshaped({to.count()})); }
  std::string checksum() const { return checksum_of(tensor_.data, tensor_.bytes()); }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

// What a step came to.
struct Outcome {
  std::vector<std::string> checksums;  // in the order of the state's parts
  uint64_t losses = 0, norm = 0;       // bits
  int applied = 0;
};

Outcome outcome_of(const std::vector<FlatState>& state, const UpdateControl& done) {
  Outcome outcome{{}, std::bit_cast<uint64_t>(done.losses), std::bit_cast<uint64_t>(done.norm), done.applied};
  for (const FlatState& part : state) outcome.checksums.push_back(Copy(part.tensor).checksum());
  return outcome;
}

std::string difference(const std::vector<FlatState>& state, const Outcome& first, const Outcome& second) {
  std::vector<std::string> parts;
  if (first.losses != second.losses) parts.emplace_back("the loss");
  if (first.norm != second.norm || first.applied != second.applied) parts.emplace_back("the gradient");
  for (size_t i = 0; i < state.size(); ++i)
    if (first.checksums[i] != second.checksums[i]) parts.emplace_back(state[i].name);
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

bool is_verified(const TrainConfig& train, int64_t step) {
  return train.verify_every > 0 && step % train.verify_every == 0;
}

UpdateControl take_twice(Optimizer& optimizer, Comm& comm, int64_t step,
                         const std::function<UpdateControl()>& take) {
  const std::vector<FlatState> state = optimizer.flat_state();
  std::vector<Copy> before;
  before.reserve(state.size());
  for (const FlatState& part : state) before.emplace_back(part.tensor);
  const auto go_back = [&] {
    for (size_t i = 0; i < state.size(); ++i) before[i].give_back(state[i].tensor);
    optimizer.loaded();
  };
  const Outcome first = outcome_of(state, take());
  go_back();
  const UpdateControl done = take();
  const std::string differs = difference(state, first, outcome_of(state, done));
  std::string error;
  if (!differs.empty()) {
    go_back();
    error = fmt::format(
        "step {} was computed twice (train.verify_every), and the two differ in {}: this machine does not "
        "compute reliably. Nothing of this step was kept; go on from the last checkpoint on another GPU or "
        "machine",
        step, differs);
  }
  if (comm.size() == 1) {
    LONGSTRIDE_CHECK(error.empty(), "{}", error);
    return done;
  }
  try {
    agree(comm, error);
  } catch (const RankLost&) {
    throw;
  } catch (...) {
    if (error.empty()) go_back();
    throw;
  }
  return done;
}

int64_t bytes_to_take_twice(const RunConfig& config, int ranks) {
  if (config.train.verify_every == 0) return 0;
  const int64_t weights = ParameterStore::bytes(parameter_table(config.model), DType::f32);
  const int64_t moments = Optimizer::moment_bytes(config, ranks),
                averages = Optimizer::average_bytes(config, ranks);
  return weights + moments + averages + std::max({weights, moments, averages});
}

}  // namespace longstride
