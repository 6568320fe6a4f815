// Plans of attention, made once for all that ask for the same: a run measures them before it begins, and its
// model walks them then.
#pragma once

#include <memory>
#include <vector>

#include "longstride/model/config.h"
#include "longstride/ops/attention.h"

namespace longstride {

// A plan's lists depend on the layer, its heads and the positions alone. Those in use and the last few are
// kept. May be called by several threads. Throws Error for what plan_attention refuses.
std::shared_ptr<const AttentionPlan> shared_attention_plan(Device device, const LayerPattern& layer,
                                                           int64_t heads, int64_t n);

// The plans of a schedule's cycle, where equal layers have the same one. With `upload` those of a GPU can be
// run there; without, its memory is left alone.
std::vector<std::shared_ptr<const AttentionPlan>> attention_plans_of(const ModelConfig& config, Device device,
                                                                     bool upload);

// Bytes of their lists of tiles on that device, each plan counted once.
int64_t attention_plan_bytes(Device device, const std::vector<std::shared_ptr<const AttentionPlan>>& plans);

}  // namespace longstride
