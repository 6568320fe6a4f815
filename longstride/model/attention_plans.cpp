#include "longstride/model/attention_plans.h"

#include <algorithm>
#include <deque>
#include <mutex>

namespace longstride {

namespace {

using SharedPlan = std::shared_ptr<const AttentionPlan>;

constexpr size_t kKept = 16;  // the stages of a run, or the layers of a cycle

struct KnownPlan {
  DeviceKind device;
  LayerPattern layer;
  int64_t heads = 0, n = 0;
  std::weak_ptr<const AttentionPlan> plan;
};

class KnownPlans {
 public:
  SharedPlan get(Device device, const LayerPattern& layer, int64_t heads, int64_t n) {
    const std::lock_guard lock(mutex_);
    std::erase_if(known_, [](const KnownPlan& known) { return known.plan.expired(); });
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const KnownPlan& known) {
      return known.device == device.kind && known.heads == heads && known.n == n && known.layer == layer;
    });
    SharedPlan plan = found != known_.end() ? found->plan.lock() : nullptr;
    if (plan == nullptr) {
      plan = std::make_shared<const AttentionPlan>(plan_attention(device, layer, heads, n, false));
      known_.push_back({device.kind, layer, heads, n, plan});
    }
    std::erase(kept_, plan);
    kept_.push_back(plan);
    if (kept_.size() > kKept) kept_.pop_front();
    return plan;
  }

 private:
  std::mutex mutex_;
  std::vector<KnownPlan> known_;
  std::deque<SharedPlan> kept_;  // the last that were asked for
};

}  // namespace

SharedPlan shared_attention_plan(Device device, const LayerPattern& layer, int64_t heads, int64_t n) {
  static KnownPlans plans;
  return plans.get(device, layer, heads, n);
}

std::vector<SharedPlan> attention_plans_of(const ModelConfig& config, Device device, bool upload) {
  const Schedule& schedule = config.schedule();
  std::vector<SharedPlan> plans;
  for (size_t i = 0; i < schedule.cycle.size(); ++i) {
    const auto begin = schedule.cycle.begin(), here = begin + static_cast<std::ptrdiff_t>(i);
    if (const auto same = std::find(begin, here, *here); same != here) {
      plans.push_back(plans[static_cast<size_t>(same - begin)]);
      continue;
    }
    plans.push_back(shared_attention_plan(device, *here, config.heads, config.context));
    if (upload && device.kind != DeviceKind::cpu)
      plans.back() = std::make_shared<const AttentionPlan>(uploaded(*plans.back(), device));
  }
  return plans;
}

int64_t attention_plan_bytes(Device device, const std::vector<SharedPlan>& plans) {
  int64_t bytes = 0;
  for (auto plan = plans.begin(); plan != plans.end(); ++plan)
    if (std::find(plans.begin(), plan, *plan) == plan) bytes += attention_plan_bytes(device, **plan);
  return bytes;
}

}  // namespace longstride
