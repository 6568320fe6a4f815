#include "longstride/ops/cpu/instruction_sets.h"

#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.hpp>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/instruction_sets.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {
// Asking through the same dispatch as the ops is the only answer that cannot differ from theirs.
const char* target_name() { return hwy::TargetName(HWY_TARGET); }
}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(target_name);

std::string vector_instruction_set() { return HWY_DYNAMIC_DISPATCH(target_name)(); }

std::string product_instruction_set() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  switch (isa) {
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

}  // namespace longstride::cpu
#endif
