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

#include "longstride/device/backend.h"
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
  // Turns in which the heads of a layer attend, if they are all alike; 0: as many as pay.
  int64_t turns = 0;
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
//
// Heads take turns: while those of one turn attend, the keys and values of the next are on their way by a second
// stream. Heads that look at other keys, as in a spread pattern, have turns of their own, and only what these heads
// look at travels.
class SharedAttention {
 public:
  // Elements that travel, the turns one after the other.
  struct Room {
    Tensor out, in;
    std::vector<Tensor> kept;  // by layer: what arrived in its forward pass; or none
  };

  // `whole` are the plans of all positions, in the order of the schedule's cycle.
  SharedAttention(const ModelConfig& config, int64_t batch, Device device, const SequenceRanks& ranks,
                  std::span<const std::shared_ptr<const AttentionPlan>> whole);
  // With `keeps`, what arrives in the forward pass of each layer stays for forward_again().
  Room allocate(DType product, bool keeps, Arena& arena) const;
  // `room` of allocate(), with memory.
  void use(Device device, const Room& room);

  // Device bytes of plans and lists of rows.
  int64_t bytes() const;

  // `t`, which are columns of qkv (B * n, 2 * qk + d), where this rank's rows are set; receives the others that are
  // needed.
  void forward(const OpContext& context, int64_t layer, const AttentionTensors& t, const Tensor& qkv) const;
  // The same for the backward pass, with the rows that forward() received if they were kept.
  void forward_again(const OpContext& context, int64_t layer, const AttentionTensors& t,
                     const Tensor& qkv) const;
  // Right after forward_again() of the same layer: `gradients`, which are columns of d_qkv but d_o, whose rows of this rank
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
  // By rank.
  struct Lists {
    std::vector<Rows> give, take;
  };
  // Heads first, first + step, ...
  struct Turn {
    int64_t first, step, count, heads_before;   // heads of earlier turns
    std::shared_ptr<const AttentionPlan> plan;  // of these heads and this rank's queries
    std::shared_ptr<Lists> lists;
  };
  using Layer = std::vector<Turn>;
  // One end of an exchange: rows of `lists` among `elements`, from `begin` on.
  struct Side {
    const std::vector<Rows>& lists;
    const Tensor& elements;
    int64_t begin;
  };

  Layer turns_of(const AttentionPlan& whole) const;
  const Layer& of_layer(int64_t layer) const { return *layers_[static_cast<size_t>(layer) % layers_.size()]; }
  // The columns of qkv with the keys and values of a turn's heads.
  std::vector<IndexRange> columns_of(const Turn& turn) const;
  int64_t elements_of(const Turn& turn, const std::vector<Rows>& lists) const;
  int64_t elements_of(const Layer& layer, std::vector<Rows> Lists::*which) const;
  const Tensor& arrived_of(int64_t layer) const;
  static AttentionTensors tensors_of(const Turn& turn, AttentionTensors t);
  // Calls visit(list, columns, where these rows and columns travel) from element `begin` on.
  template <class Visit>
  void for_each_block(const Turn& turn, const std::vector<Rows>& lists, const Tensor& elements, int64_t begin,
                      const Visit& visit) const;
  void pick(const OpContext& context, const Turn& turn, const std::vector<Rows>& lists, const Tensor& from,
            int64_t begin) const;
  void place(const OpContext& context, const Turn& turn, const std::vector<Rows>& lists,
             const Tensor& arrived, int64_t begin, const Tensor& to, bool adds) const;
  // Goes on beside what is queued later, until mark `mark` is awaited.
  void exchange(const Turn& turn, const Side& leaves, const Side& arrives, size_t mark) const;
  // Places what has arrived or, with `awaits`, will arrive, and attends.
  void attend(const OpContext& context, int64_t layer, const AttentionTensors& t, const Tensor& qkv,
              bool awaits) const;
  ModelConfig config_;
  int64_t batch_;
  SequenceRanks ranks_;
  RankPositions positions_;
  std::vector<std::shared_ptr<Layer>> layers_;  // by place in the cycle
  std::vector<Buffer> numbers_;
  std::unique_ptr<SideStream> side_;  // a mark for each turn
  Room room_;
};

}  // namespace longstride
