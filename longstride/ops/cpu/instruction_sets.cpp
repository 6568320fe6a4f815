#include "longstride/ops/cpu/instruction_sets.h"

#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "longstride/base/check.h"
#include "longstride/ops/cpu/attention_pairs.h"
#include "longstride/ops/cpu/bf16_products.h"
#include "longstride/ops/cpu/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/instruction_sets.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {
// Asked through the same dispatch as the ops, so that the answer cannot differ from theirs.
const char* target_name() { return hwy::TargetName(HWY_TARGET); }
}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(target_name);

namespace {

// The best of Highway's targets that `most` allows; a better target is a lower bit. 0: all.
int64_t best_target(Instructions most) {
  switch (most) {
    case Instructions::generic:
      return HWY_EMU128;
    case Instructions::neon:
      return HWY_NEON;
    case Instructions::sse4:
      return HWY_SSE4;
    case Instructions::avx2:
      return HWY_AVX2;
    case Instructions::avx512:
    case Instructions::avx512_bf16:
    case Instructions::amx:
    case Instructions::any:
      break;
  }
  return 0;
}

// oneDNN 2 and 3 have different names for this value. As a limit it means all sets, as an answer none.
constexpr dnnl::cpu_isa kNoParticularIsa{};

dnnl::cpu_isa product_limit(Instructions most) {
  switch (most) {
    case Instructions::generic:
    case Instructions::sse4:
      return dnnl::cpu_isa::sse41;
    case Instructions::avx2:
      return dnnl::cpu_isa::avx2;
    case Instructions::avx512:
      return dnnl::cpu_isa::avx512_core;
    case Instructions::avx512_bf16:
      return dnnl::cpu_isa::avx512_core_bf16;
    case Instructions::neon:
    case Instructions::amx:
    case Instructions::any:
      break;
  }
  return kNoParticularIsa;
}

}  // namespace

void limit_our_instructions(Instructions most) {
  const int64_t best = best_target(most);
  hwy::DisableTargets(best == 0 ? 0 : best - 1);
  set_instruction_limit(most);
}

void limit_instructions(Instructions most) {
  limit_our_instructions(most);
  const dnnl::cpu_isa isa = product_limit(most);
  if (isa == kNoParticularIsa) return;
  LONGSTRIDE_CHECK(dnnl::set_max_cpu_isa(isa) == dnnl::status::success,
                   "oneDNN cannot be limited to {}: it was built without that, or is in use already",
                   name_of(most));
}

std::string vector_instruction_set() { return HWY_DYNAMIC_DISPATCH(target_name)(); }

std::string product_instruction_set() {
  // On ARM oneDNN's numbers have other meanings, and no version names what a CPU has.
  if constexpr (HWY_ARCH_ARM != 0) return "what ARM offers";
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  switch (isa) {
    case kNoParticularIsa:
      return "generic code";
    case dnnl::cpu_isa::sse41:
      return "SSE4.1";
    case dnnl::cpu_isa::avx:
      return "AVX";
    case dnnl::cpu_isa::avx2:
      return "AVX2";
    case dnnl::cpu_isa::avx2_vnni:
      return "AVX2 VNNI";
    case dnnl::cpu_isa::avx512_core:
      return "AVX-512";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "AVX-512 VNNI";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "AVX-512 BF16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "AVX-512 AMX";
    default:
      return fmt::format("oneDNN's set {:#x}", static_cast<unsigned>(isa));
  }
}

std::vector<InstructionUse> instructions_in_use() {
  const std::string vectors = vector_instruction_set() + " (Highway)", pairs = pair_instruction_set();
  const auto products = [](DType dtype) {
    return fmt::format("at most {} (oneDNN, {})", product_instruction_set(), matmul_kernel(dtype));
  };
  return {
      {"vector ops", vectors},
      {"attention f32", vectors},
      {"attention bf16", pairs.empty() ? "widened to f32, " + vectors : pairs},
      {"linear f32", products(DType::f32)},
      {"linear bf16", multiplies_bf16() ? products(DType::bf16) : "widened to f32, " + products(DType::f32)},
      {"decode", vectors}};
}

}  // namespace longstride::cpu
#endif
