// The whole model: embedding, residual blocks, distribution over the next byte. Forward and backward have
// explicit gradients, and every byte of working memory is planned before the first step.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "longstride/model/block.h"
#include "longstride/model/offload.h"
#include "longstride/model/sequence_ranks.h"

namespace longstride {

// How a model is run, as opposed to its shape.
struct ComputePlan {
  Device device = {};
  DType product = DType::f32;  // compute dtype, of matrix products and branches; all else is f32
  int64_t batch = 1;           // sequences at a time
  bool training = false;
  bool recompute = true;  // training: keep each block's input only, and run it again in the backward pass
  bool offload = false;   // with recompute on a GPU: the inputs wait in the CPU's memory
  bool keep_received =
      false;  // with recompute where ranks share sequences: keys and values that came from others
  // Where several ranks share each sequence. All of them make the same calls with whole sequences, and each
  // computes its own positions.
  SequenceRanks sequence = {};
};

// Bytes that a run needs, by use. Without training `gradients`, `optimizer` and `average` are zero.
struct MemoryPlan {
  int64_t weights = 0, products = 0, gradients = 0, optimizer = 0, average = 0;
  int64_t activations = 0;  // kept for the backward pass, or the two streams of an inference
  int64_t temporaries = 0;  // the workspace of one block and the ops' scratch
  int64_t plans = 0;        // tile lists of the attention patterns
  int64_t offloaded = 0;    // not in the total: pinned memory of the CPU
  int64_t total() const {
    return weights + products + gradients + optimizer + average + activations + temporaries + plans;
  }
};

// Bytes that a Transformer with these plans would allocate (activations, temporaries, plans), and those of
// its stores.
MemoryPlan plan_memory(const ModelConfig& config, const ComputePlan& plan, bool average);

// What attention read in a layer, in the compute dtype; all but the queries is what a sampler keeps.
struct LayerRows {
  Tensor queries, keys;  // (B, N, H, D)
  Tensor values;         // (B, N, H, Dv)
  Tensor unconvolved;    // (B, N, d), the rows that model.convolution convolves; else empty
};
// Called after each layer. The next one overwrites the rows.
using LayerSink = std::function<void(int64_t layer, const LayerRows& rows)>;

// Receives logits (R, 256) f32 on the model's device, which are those of the rows of (B * N) from `first` on.
// They are overwritten after the call.
using LogitsSink = std::function<void(int64_t first, const Tensor& logits)>;

// One forward and backward pass of training.
struct TrainingPass {
  float scale = 1;         // gradients are of the sum of the losses, times this
  Tensor loss_scale = {};  // and, unless empty, times this one f32 on the model's device
  double dropout = 0;      // masks are a function of (seed, step, layer, sequence of the batch, position)
  uint64_t seed = 0;
  uint32_t step = 0;
  int64_t first_sequence = 0;  // of the batch, where the pass takes a part of it
  // If not null, *step_from on the model's device replaces `step` when the work runs.
  const uint32_t* step_from = nullptr;
  // Unless empty, called once all that adds to the gradients of block `layer` is queued, the last block first.
  std::function<void(int64_t layer)> block_done = {};
};

class Transformer {
 public:
  // Plans attention and allocates all working memory for plan.batch sequences of config.context bytes.
  Transformer(const ModelConfig& config, const ComputePlan& plan);
  // Not moved: the context of its ops points at its scratch.
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // loss (B, N) f32 = nats of each token given the ones before it; tokens (B, N) u8. No dropout. Ranks that share
  // sequences all get all of them.
  void evaluate(const ModelParameters& parameters, const Tensor& tokens, const Tensor& loss);

  // Passes the logits of each token, given the ones before it, to `sink`, some rows at a time. `after_layer`
  // is called after each block, unless it is empty; what it throws ends the pass.
  void logits(const ModelParameters& parameters, const Tensor& tokens, const LogitsSink& sink,
              const std::function<void()>& after_layer = {});

  // As evaluate() with dropout, and the gradients of the losses are added to `gradients`. Needs plan.training.
  // With ranks that share sequences, losses of others' positions are 0, and gradients lack their part.
  void forward_backward(const ModelParameters& parameters, const Tensor& tokens, const TrainingPass& pass,
                        const Tensor& loss, const ModelParameters& gradients);

  // Runs the blocks over tokens and passes to `sink` what each layer's attention read.
  void prefill(const ModelParameters& parameters, const Tensor& tokens, const LayerSink& sink);

  const ModelConfig& config() const { return config_; }
  const ComputePlan& plan() const { return plan_; }
  const AttentionPlan& attention(int64_t layer) const { return *attention_of_layer_[layer]; }
  // Bytes of attention tile lists, once they are built.
  int64_t planned_attention_bytes() const;
  // Bytes of working memory held: those that plan_memory calls activations and temporaries.
  int64_t workspace_bytes() const { return arena_.capacity() + scratch_.capacity(); }

 private:
  friend MemoryPlan plan_memory(const ModelConfig&, const ComputePlan&, bool);
  struct Workspace {
    // Inputs of blocks and the last output, (M, d) f32. All of them when training; three that take turns if
    // they are offloaded; one that every block updates in place if not training.
    std::vector<Tensor> streams;
    std::vector<BlockActivations> activations;  // one for each block if kept, else a single one
    BlockTemporaries temporaries;
    Tensor d_stream;      // (M, d) gradient of the residual stream
    Tensor mean, rstd;    // (M) of the final layer norm
    Tensor rotation;      // see rotary.h; (context, D) or empty
    SharedValues values;  // of blocks; `first` is empty where activations are kept, because they hold it
    // Where ranks share sequences: what their attention needs, and this rank's tokens and losses.
    SharedAttention::Room shared;
    SharedConvolution::Room shared_convolution;
    Tensor own_tokens, own_loss;
    int64_t activation_bytes = 0;
  };
  static Workspace allocate_workspace(const ModelConfig& config, const ComputePlan& plan,
                                      const SharedAttention* shared, const SharedConvolution* convolution,
                                      Arena& arena);
  static int64_t scratch_bytes(const ModelConfig& config, const ComputePlan& plan,
                               std::span<const std::shared_ptr<const AttentionPlan>> attention);

  SharedValues shared_values() const;
  BlockCall block_call(const ModelParameters& parameters, int64_t layer, const TrainingPass& pass) const;
  NextNorm norm_after(const ModelParameters& parameters, int64_t layer) const;
  // Leaves the final layer norm of the last block's output in temporaries.branch. `pass` is null if no
  // backward follows; `sink` may be null.
  void run_blocks(const ModelParameters& parameters, const Tensor& tokens, const TrainingPass* pass,
                  const LayerSink* sink);
  // Calls use(first, logits) for the rows of the head, after run_blocks().
  template <class Use>
  void run_head(const ModelParameters& parameters, int64_t rows, const Use& use);
  // This rank's tokens of `tokens`, flat, and where its losses are computed. spread_loss() brings those to `loss`.
  Tensor own_tokens(const Tensor& tokens) const;
  Tensor own_loss(const Tensor& loss) const;
  void spread_loss(const Tensor& loss, bool to_all) const;
  void embed(const ModelParameters& parameters, const Tensor& tokens);
  void check_tokens(const Tensor& tokens, const Tensor& loss) const;
  const Tensor& input(int64_t layer) const { return work_.streams[layer % work_.streams.size()]; }
  const BlockActivations& saved(int64_t layer) const;

  ModelConfig config_;
  ModelConfig own_;  // the same, whose context is the positions of a sequence that this rank has
  ComputePlan plan_;
  std::vector<std::shared_ptr<const AttentionPlan>> attention_;  // one for each layer of the schedule's cycle
  std::vector<const AttentionPlan*> attention_of_layer_;
  Arena arena_ = Arena::measuring({});
  Arena scratch_ = Arena::measuring({});
  Workspace work_;
  std::unique_ptr<SharedAttention> shared_;  // or null
  std::unique_ptr<SharedConvolution> shared_convolution_;
  std::unique_ptr<OffloadedInputs> offloaded_;  // or null
  OpContext context_;
};

}  // namespace longstride
