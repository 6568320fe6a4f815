// What attention and the store of keys refuse, and what they say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/ops/attention.h"
#include "longstride/ops/key_cache.h"
#include "longstride/verify/layer_cache.h"

#include "tests/ops/attention_problem.h"

namespace longstride {
namespace {

template <class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(AttentionErrors, NameTheTensorAndTheShape) {
  using testing::HasSubstr;
  Problem p(20);
  const AttentionPlan plan = plan_attention({}, layer_of("window:4"), 1, 20);
  Arena scratch({}, attention_scratch_bytes({}, plan, DType::f32, 1, 1, 4, 4));
  const OpContext context{{}, &scratch};

  AttentionTensors wrong = p.tensors;
  wrong.k = Tensor(p.k.data(), DType::f32, {1, 20, 2, 2});
  EXPECT_THAT(
      error_of([&] {
        longstride::run(context, AttentionForward{plan, wrong});
      }),
      testing::AllOf(HasSubstr("attention_forward: k is f32 (1, 20, 2, 2)"), HasSubstr("(1, 20, 1, 4)")));
  wrong = p.tensors;
  wrong.lse = Tensor(p.lse.data(), DType::f32, {1, 20, 1});
  EXPECT_THAT(error_of([&] { longstride::run(context, AttentionForward{plan, wrong}); }), HasSubstr("lse"));
  wrong = p.tensors;
  wrong.v.dtype = DType::bf16;
  EXPECT_THAT(error_of([&] {
                longstride::run(context, AttentionForward{plan, wrong});
              }),
              HasSubstr("v is bf16"));
  AttentionGradients gradients = p.gradients;
  gradients.dk = Tensor(p.dk.data(), DType::f32, {1, 19, 1, 4});
  EXPECT_THAT(error_of([&] {
                longstride::run(context, AttentionBackward{plan, p.tensors, gradients});
              }),
              HasSubstr("attention_backward: dk is"));
  EXPECT_THAT(p.o, testing::Each(testing::IsNan()));  // nothing was written

  EXPECT_THAT(error_of([&] {
                longstride::run(context,
                                AttentionForward{plan_attention({}, layer_of("window:4"), 1, 21), p.tensors});
              }),
              HasSubstr("21 positions"));
  EXPECT_THAT(error_of([&] {
                longstride::run(context,
                                AttentionForward{plan_attention({}, layer_of("window:4"), 2, 20), p.tensors});
              }),
              HasSubstr("2 heads"));
  EXPECT_THAT(error_of([&] {
                longstride::run({}, AttentionForward{plan, p.tensors});
              }),
              HasSubstr("scratch"));
  EXPECT_THAT(error_of([&] { plan_attention({}, layer_of("window:4"), 0, 20); }), HasSubstr("0 heads"));
}

TEST(KeyCacheErrors, NameWhatDoesNotFit) {
  using testing::HasSubstr;
  const verify::LayerCache cache(layer_of("window:4"), 20, {2, 1, 4, 3}, {}, DType::f32, DType::bf16);
  std::vector<float> memory(200);
  const auto rows = [&](int64_t count, int64_t width) {
    return Tensor(memory.data(), DType::f32, {count, 1, width});
  };
  const auto stored = [&](int64_t sequence, int64_t begin, const Tensor& keys, const Tensor& values) {
    return error_of([&] { longstride::run({}, StoreKeys{*cache, sequence, begin, keys, values}); });
  };
  EXPECT_EQ(stored(1, 15, rows(5, 4), rows(5, 3)), "no error");
  EXPECT_THAT(stored(1, 16, rows(5, 4), rows(5, 3)), HasSubstr("store_keys: position 20 of 20"));
  EXPECT_THAT(stored(0, -1, rows(5, 4), rows(5, 3)), HasSubstr("begin is -1"));
  EXPECT_THAT(stored(2, 0, rows(5, 4), rows(5, 3)), HasSubstr("sequence 2 of 2"));
  EXPECT_THAT(stored(0, 0, rows(5, 4), rows(4, 3)), HasSubstr("values is f32 (4, 1, 3), must be (5, 1, 3)"));
  Tensor half = rows(5, 3);
  half.dtype = DType::f16;
  EXPECT_THAT(stored(0, 0, rows(5, 4), half), HasSubstr("values is f16 (5, 1, 3), the cache bf16"));

  const auto attended = [&](std::vector<int64_t> positions, const Tensor& q, const Tensor& o) {
    return error_of([&] { longstride::run({}, AttentionOne{*cache, positions, q, 1, o}); });
  };
  EXPECT_EQ(attended({0, -1}, rows(2, 4), rows(2, 3)), "no error");
  EXPECT_THAT(attended({0, 20}, rows(2, 4), rows(2, 3)), HasSubstr("position 20 of 20"));
  EXPECT_THAT(attended({0, -2}, rows(2, 4), rows(2, 3)), HasSubstr("position is -2"));
  EXPECT_THAT(attended({0}, rows(2, 4), rows(2, 3)), HasSubstr("1 positions of 2 sequences"));
  EXPECT_THAT(attended({0, 0}, rows(2, 3), rows(2, 3)), HasSubstr("q is f32 (2, 1, 3), must be (2, 1, 4)"));
}

TEST(Attention, ListsForADeviceThatTheBuildLacksAreRefused) {
  if (is_built(DeviceKind::cuda)) GTEST_SKIP() << "this build has CUDA";
  const AttentionPlan plan = plan_attention({}, parse_schedule("window:4").layer(0), 1, 8);
  EXPECT_THAT(error_of([&] {
                attention_plan_bytes({DeviceKind::cuda, 0}, plan);
              }),
              testing::HasSubstr("built without CUDA"));
}

}  // namespace
}  // namespace longstride
