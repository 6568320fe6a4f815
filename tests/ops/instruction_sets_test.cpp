// The limit of the CPU's instruction sets: names, error messages, and right answers with every set that this
// CPU has. oneDNN takes only one limit, so what it does under a limit is tested on the whole program
// (tests/cli).
#include "longstride/ops/cpu/instruction_sets.h"

#include "longstride/base/text.h"
#include "longstride/ops/cpu/attention_pairs.h"
#include "longstride/ops/cpu/attention_pairs_products.h"
#include "longstride/ops/cpu/bf16_products.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

using testing::HasSubstr;

class InstructionLimit : public testing::Test {
 protected:
  void TearDown() override { cpu::limit_our_instructions(Instructions::any); }
};

TEST(Instructions, NamesAreReadAsTheyAreWritten) {
  for (size_t i = 0; i < instruction_names().size(); ++i) {
    const Instructions set = static_cast<Instructions>(i);
    EXPECT_EQ(parse_instructions(name_of(set), "here"), set);
  }
  EXPECT_EQ(name_of(Instructions::generic), "generic");
  EXPECT_EQ(name_of(Instructions::avx512_bf16), "avx512-bf16");
  EXPECT_EQ(name_of(Instructions::amx), "amx");
  EXPECT_EQ(name_of(Instructions::any), "auto");
  for (const char* wrong : {"", "AMX", "avx", "avx512_bf16", "auto "}) {
    EXPECT_THROW(parse_instructions(wrong, "here"), UsageError) << wrong;
    EXPECT_THAT(error_of([&] { parse_instructions(wrong, "here"); }),
                AllOf(HasSubstr(fmt::format("here = \"{}\"", wrong)), HasSubstr("avx512, avx512-bf16, amx")));
  }
}

TEST(Instructions, ASetThatTheCpuLacksIsRefusedWithTheChoices) {
  using enum Instructions;
  const std::vector<Instructions> offered{generic, sse4, avx2, avx512, avx512_bf16};
  EXPECT_EQ(
      error_of([&] { check_offered(amx, "compute.instructions", offered); }),
      "compute.instructions = \"amx\": this CPU has up to AVX512-BF16; choose auto, generic, sse4, avx2, "
      "avx512 or avx512-bf16");
  EXPECT_EQ(error_of([&] { check_offered(sse4, "x", {generic}); }),
            "x = \"sse4\": this CPU has up to generic instructions; choose auto or generic");
  EXPECT_EQ(error_of([&] { check_offered(avx2, "x", {neon}); }),
            "x = \"avx2\": this CPU has up to NEON; choose auto or neon");
  for (const Instructions set : offered) EXPECT_NO_THROW(check_offered(set, "x", offered));
  EXPECT_NO_THROW(check_offered(any, "x", {generic}));
}

TEST_F(InstructionLimit, NothingAboveItMayBeUsed) {
  const std::vector<Instructions>& sets = instructions_of_cpu();
  ASSERT_FALSE(sets.empty());
  for (const Instructions most : sets) {
    cpu::limit_our_instructions(most);
    EXPECT_EQ(instruction_limit(), most);
    for (const Instructions set : sets) EXPECT_EQ(may_use(set), set <= most) << name_of(set);
    EXPECT_EQ(cpu_has_bf16(), most >= Instructions::avx512_bf16);
    EXPECT_LE(cpu::multiplies_bf16(), cpu_has_bf16());
  }
  cpu::limit_our_instructions(Instructions::any);
  for (const Instructions set : sets) EXPECT_TRUE(may_use(set));
}

#if defined(__x86_64__)
struct Expected {
  Instructions limit;
  const char* vectors;
  cpu::PairEngine engine;
  const char* pairs;
};
constexpr Expected kExpected[] = {
    {Instructions::generic, "EMU128|SCALAR", cpu::PairEngine::none, ""},
    {Instructions::sse4, "SSE4", cpu::PairEngine::none, ""},
    {Instructions::avx2, "AVX2", cpu::PairEngine::none, ""},
    {Instructions::avx512, "AVX3", cpu::PairEngine::none, ""},
    {Instructions::avx512_bf16, "AVX3", cpu::PairEngine::avx512_bf16, "AVX512-BF16"},
    {Instructions::amx, "AVX3", cpu::PairEngine::amx, "AMX"}};

TEST_F(InstructionLimit, EverySetOfThisCpuGivesRightAnswers) {
  for (const Expected& expected : kExpected) {
    const std::vector<Instructions>& sets = instructions_of_cpu();
    if (std::find(sets.begin(), sets.end(), expected.limit) == sets.end()) continue;
    SCOPED_TRACE(name_of(expected.limit));
    cpu::limit_our_instructions(expected.limit);
    EXPECT_THAT(split(expected.vectors, '|'), testing::Contains(cpu::vector_instruction_set()));
    EXPECT_EQ(cpu::pair_engine(), expected.engine);
    EXPECT_STREQ(cpu::pair_instruction_set(), expected.pairs);
    EXPECT_EQ(cpu::multiply_in_pairs(DType::bf16), expected.engine != cpu::PairEngine::none);
    EXPECT_FALSE(cpu::multiply_in_pairs(DType::f32));
    for (const verify::CheckGroup& group : verify::kCheckGroups)
      if (group.run != verify::check_model && group.run != verify::check_decode)
        expect_all_pass(group.run({}, verify::Effort::quick));
  }
}
#endif

}  // namespace
}  // namespace longstride
