// Sparse attention: o[q] = sum over k with allows(q, k) of softmax_k(scale * q . k) v[k], one head at a time.
//
// A query that may look at no key (a head of summaries alone, before the first one) gets o = 0 and
// log-sum-exp = -inf, and passes no gradient. Accumulation is in f32. Never more than a tile of a row of
// scores exists.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "longstride/ops/run.h"
#include "longstride/pattern/plan.h"
#include "longstride/pattern/tile_masks.h"

namespace longstride {

// A plan in the form that a device's kernels read, in the device's memory. A CPU reads the plan itself.
class AttentionLists {
 public:
  virtual ~AttentionLists() = default;
  virtual int64_t bytes() const = 0;
};

// The plans of one layer's heads: equal patterns share a plan.
struct AttentionPlan {
  std::vector<Plan> plans;
  std::vector<std::vector<TileMasks>> masks;  // by plan and pass
  std::vector<int> plan_of_head;
  std::shared_ptr<const AttentionLists> on_device;  // for a plan of a GPU
  int64_t n = 0;
  int64_t pairs = 0;  // allowed pairs summed over heads, for one sequence
  const Plan& head(int64_t h) const { return plans[plan_of_head[h]]; }
};

// Plans in tiles of kMaskTile. Without `upload` no memory of a GPU is used: the plan can be measured but not
// run there.
AttentionPlan plan_attention(Device device, const LayerPattern& layer, int64_t heads, int64_t n,
                             bool upload = true);
// The part of a plan that these queries have (pattern/part.h), not uploaded.
AttentionPlan plan_of_queries(const AttentionPlan& whole, std::span<const IndexRange> ranges);
// The same plan with its lists in the memory of that device.
AttentionPlan uploaded(AttentionPlan plan, Device device);
// Bytes of its lists on that device, whether they are there or not.
int64_t attention_plan_bytes(Device device, const AttentionPlan& plan);

// All but lse have one dtype: f32, bf16, or f16 on a GPU. In 16 bits the inputs of every product are rounded
// to that type (weights of the softmax and their gradients too) and sums are f32. If several passes of a
// plan add to an o or a gradient, it is rounded once in each pass. On Hopper dk takes the weights as they
// were rounded for dv; on a GPU, rows that do not begin at multiples of 16 bytes have them in f32. A GPU takes up to
// 65,535 sequences and as many heads. Inputs are finite: a NaN may reach every row that has a key in the same tile.
struct AttentionTensors {
  Tensor q, k;  // (B, N, H, D)  rows may be part of wider ones (strides are honoured, the last is 1)
  Tensor v;     // (B, N, H, Dv)
  Tensor o;     // (B, N, H, Dv) =  in the forward, read in the backward
  Tensor lse;   // (B, H, N) f32, dense =  natural log of the sum of exp(scale * q . k); read in the backward
  float scale = 1;  // positive
};

struct AttentionGradients {
  Tensor d_o;         // (B, N, H, Dv), read
  Tensor dq, dk, dv;  // =, with the type and shape of q, k, v; strides are honoured
};

struct AttentionForward {
  const AttentionPlan& plan;
  const AttentionTensors& t;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "attention_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The same bits from run to run. On the CPU the bits of f32 may depend on the number of threads: few threads
// share out heads (five products for each tile), many share out tiles (seven). bf16 always takes the second
// way.
struct AttentionBackward {
  const AttentionPlan& plan;
  const AttentionTensors& t;
  const AttentionGradients& gradients;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "attention_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Bytes of scratch of the two calls above for tensors of this type and shape and the present number of threads.
int64_t attention_scratch_bytes(Device device, const AttentionPlan& plan, DType dtype, int64_t batch,
                                int64_t heads, int64_t qk_width, int64_t v_width);

// The lists that a device keeps of a plan: *bytes of them and, unless `lists` is null, the lists.
struct ListTiles {
  const AttentionPlan& plan;
  int64_t* bytes;
  std::shared_ptr<const AttentionLists>* lists;
};

}  // namespace longstride
