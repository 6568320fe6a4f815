// Ranks that share each sequence: where a rank's positions lie, and its attention, for which it needs keys and
// values of the others.
//
// Everything but attention works position by position. So a rank keeps the rows of its own positions only, and
// before attention receives the rows of keys and values that its queries look at: the neighbours of a window,
// nothing of a block that no cut goes through, the summaries of fixed attention. The pattern says which. In the
// backward pass their gradients go back the same way and are added in the order of the ranks.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "longstride/dist/device_comm.h"
#include "longstride/model/attention_plans.h"
#include "longstride/model/config.h"
#include "longstride/ops/residual.h"
#include "longstride/pattern/part.h"

namespace longstride {

// This rank's place among those that share its sequences.
struct SequenceRanks {
  int64_t parts = 1, index = 0;
  int first_rank = 0;  // that of part 0; the others follow
  // Joined before anything runs; null where memory is only planned.
  const std::shared_ptr<DeviceComm>* devices = nullptr;
  bool shared() const { return parts > 1; }
};

// The positions of a rank's rows. Rows of a tensor are (B, positions of the rank); those of `whole` ones (B, n).
class RankPositions {
 public:
  RankPositions(int64_t n, int64_t batch, const SequenceRanks& ranks);

  struct Chunk {
    int64_t own, whole;  // first row in each
    int64_t first;       // its position in the sequence
    int64_t count;
  };
  // The chunks of all sequences, in the order of the own rows.
  const std::vector<Chunk>& chunks() const { return chunks_; }
  // Copies this rank's rows. Both contiguous, with rows of one size.
  void to_whole(const Tensor& own, const Tensor& whole) const;
  void from_whole(const Tensor& whole, const Tensor& own) const;

 private:
  std::vector<Chunk> chunks_;
};

// The call for this rank's rows. Masks of dropout are those of the whole sequences: where there are some, each chunk
// has a call of its own. `positions` is null where the rank has whole sequences.
void run_residual(const OpContext& context, const RankPositions* positions, const ResidualForward& call);
void run_residual(const OpContext& context, const RankPositions* positions, const ResidualBackward& call);

// Attention of queries on this rank. It works on tensors of all positions, of which only the rows that it needs
// mean something.
class SharedAttention {
 public:
  struct Room {
    Tensor out, in;  // (rows, qk + d) that travel
  };

  // `whole` are the plans of all positions, in the order of the schedule's cycle.
  SharedAttention(const ModelConfig& config, int64_t batch, Device device, const SequenceRanks& ranks,
                  std::span<const std::shared_ptr<const AttentionPlan>> whole);
  Room allocate(DType product, Arena& arena) const;
  // `room` of allocate(), with memory.
  void use(Device device, const Room& room);

  const AttentionPlan& plan(int64_t layer) const { return *of_layer(layer).plan; }
  // Device bytes of plans and lists of rows.
  int64_t bytes() const;

  // `t`, which are columns of qkv (B * n, 2 * qk + d), where this rank's rows are set; receives the others that are
  // needed.
  void forward(const OpContext& context, int64_t layer, const AttentionTensors& t, const Tensor& qkv) const;
  // Right after the forward of the same layer: `gradients`, which are columns of d_qkv but d_o, whose rows of this rank
  // are set. In d_qkv this rank's rows are complete then.
  void backward(const OpContext& context, int64_t layer, const AttentionTensors& t,
                const AttentionGradients& gradients, const Tensor& d_qkv) const;
  const RankPositions& positions() const { return positions_; }

 private:
  // Rows of the whole tensors that go from one rank to another.
  struct Rows {
    int rank;
    std::vector<int32_t> numbers;
    Tensor on_device;
  };
  struct Layer {
    std::shared_ptr<const AttentionPlan> plan;
    std::vector<Rows> give, take;  // by rank
  };
  const Layer& of_layer(int64_t layer) const { return *layers_[static_cast<size_t>(layer) % layers_.size()]; }
  static int64_t rows_of(const std::vector<Rows>& lists);
  Tensor keys_and_values(const Tensor& qkv) const;
  // Sends `give` of `from`, and receives `take` into the rows of `to`, or adds them.
  void exchange(const OpContext& context, const std::vector<Rows>& give, const std::vector<Rows>& take,
                const Tensor& from, const Tensor& to, bool adds) const;
  ModelConfig config_;
  int64_t batch_;
  SequenceRanks ranks_;
  RankPositions positions_;
  std::vector<std::shared_ptr<Layer>> layers_;  // by place in the cycle
  std::vector<Buffer> numbers_;
  Room room_;
};

}  // namespace longstride
