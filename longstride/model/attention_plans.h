// Plans of attention, made once for all that need the same plan: a run measures them before it begins, and
// later its model walks them.
#pragma once

#include <memory>
#include <vector>

#include "longstride/model/config.h"
#include "longstride/ops/attention.h"

namespace longstride {

// A plan's lists depend only on the layer, its heads and the positions. Plans in use and the last few others
// are kept. Several threads may call this. Throws Error for what plan_attention refuses.
std::shared_ptr<const AttentionPlan> shared_attention_plan(Device device, const LayerPattern& layer,
                                                           int64_t heads, int64_t n);

// The plans of a schedule's cycle; equal layers share one. With `upload`, plans for a GPU can be run there.
// Without, they can only be measured, and no memory of the GPU is used.
std::vector<std::shared_ptr<const AttentionPlan>> attention_plans_of(const ModelConfig& config, Device device,
                                                                     bool upload);

// Bytes of their lists of tiles on that device. A plan that layers share counts once.
int64_t attention_plan_bytes(Device device, const std::vector<std::shared_ptr<const AttentionPlan>>& plans);

}  // namespace longstride
