// Plans of attention are made once, whoever asks first.
#include "longstride/model/attention_plans.h"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/model/transformer.h"
#include "longstride/ops/profile.h"

namespace longstride {
namespace {

ModelConfig with_pattern(const std::string& pattern, int64_t context) {
  ModelConfig config;
  config.context = context, config.layers = 4, config.heads = 2, config.width = 16;
  config.pattern = pattern;
  return config;
}

// How many layers `action` plans.
template <class Action>
int64_t plans_made_by(const Action& action) {
  profile_ops(true);
  action();
  const std::vector<OpTime> times = op_times();
  profile_ops(false);
  const auto planning = std::find_if(times.begin(), times.end(),
                                     [](const OpTime& time) { return time.op == "plan_attention"; });
  return planning == times.end() ? 0 : planning->calls;
}

TEST(AttentionPlans, TheMemoryPlanAndTheModelsShareThem) {
  const ModelConfig config = with_pattern("strided:16,fixed:16,4", 301);
  ComputePlan plan;
  EXPECT_EQ(plans_made_by([&] { plan_memory(config, plan, false); }), 2);
  EXPECT_EQ(plans_made_by([&] {
              plan.batch = 2;
              const Transformer one(config, plan), other(config, plan);
              plan_memory(config, plan, true);
              EXPECT_EQ(&one.attention(0), &other.attention(0));
              EXPECT_EQ(&one.attention(0), &one.attention(2));
              EXPECT_NE(&one.attention(0), &one.attention(1));
            }),
            0);
}

TEST(AttentionPlans, EqualLayersOfACycleShareOne) {
  const ModelConfig config = with_pattern("stride:16,window:16*3", 302);
  const ModelConfig two = with_pattern("stride:16,window:16", 302);
  EXPECT_EQ(plans_made_by([&] { EXPECT_EQ(attention_plans_of(config, {}, true).size(), 4u); }), 2);
  EXPECT_EQ(attention_plan_bytes({}, attention_plans_of(config, {}, true)),
            attention_plan_bytes({}, attention_plans_of(two, {}, true)));
  EXPECT_EQ(plan_memory(config, {}, false).plans, Transformer(config, {}).planned_attention_bytes());
}

TEST(AttentionPlans, AnotherLengthHeadOrPatternIsAnotherPlan) {
  const LayerPattern layer = parse_schedule("spread-fixed:16,4").layer(0);
  const auto plan = shared_attention_plan({}, layer, 2, 303);
  EXPECT_EQ(shared_attention_plan({}, layer, 2, 303), plan);
  EXPECT_NE(shared_attention_plan({}, layer, 4, 303), plan);
  EXPECT_NE(shared_attention_plan({}, layer, 2, 304), plan);
  EXPECT_NE(shared_attention_plan({}, parse_schedule("fixed:16,4").layer(0), 2, 303), plan);
  EXPECT_EQ(plan->n, 303);
  EXPECT_EQ(plan->pairs, plan_attention({}, layer, 2, 303).pairs);
  EXPECT_EQ(plan->plans.size(), 2u);
}

TEST(AttentionPlans, ThoseOfNoUseAreLetGo) {
  const LayerPattern layer = parse_schedule("window:8").layer(0);
  const std::weak_ptr<const AttentionPlan> unused = shared_attention_plan({}, layer, 1, 1000);
  const auto used = shared_attention_plan({}, layer, 1, 1001);
  for (int64_t n = 1; n <= 100; ++n) shared_attention_plan({}, layer, 1, n);
  EXPECT_TRUE(unused.expired());
  EXPECT_EQ(shared_attention_plan({}, layer, 1, 1001), used);
  EXPECT_EQ(shared_attention_plan({}, layer, 1, 1000)->n, 1000);
}

TEST(AttentionPlans, SeveralThreadsGetTheSame) {
  const LayerPattern layer = parse_schedule("fixed:16,4").layer(0);
  std::vector<std::shared_ptr<const AttentionPlan>> plans(8);
  std::vector<std::thread> threads;
  for (auto& plan : plans) threads.emplace_back([&] { plan = shared_attention_plan({}, layer, 2, 305); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& plan : plans) EXPECT_EQ(plan, plans[0]);
  EXPECT_THROW(shared_attention_plan({}, layer, 0, 305), Error);
  EXPECT_THROW(shared_attention_plan({}, layer, 2, 0), Error);
}

}  // namespace
}  // namespace longstride
