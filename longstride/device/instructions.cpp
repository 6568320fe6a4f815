#include "longstride/device/instructions.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <fmt/ranges.h>

#include "longstride/base/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace longstride {

namespace {

std::atomic<Instructions> limit{Instructions::any};
// Bit i: the set of value i may be used; 0: not found out yet. Kernels ask before every product.
std::atomic<uint32_t> usable{0};

// As in the names of products and manuals.
const char* printed_name(Instructions set) {
  switch (set) {
    case Instructions::generic:
      return "generic instructions";
    case Instructions::neon:
      return "NEON";
    case Instructions::sse4:
      return "SSE4";
    case Instructions::avx2:
      return "AVX2";
    case Instructions::avx512:
      return "AVX-512";
    case Instructions::avx512_bf16:
      return "AVX512-BF16";
    case Instructions::amx:
      return "AMX";
    case Instructions::any:
      break;
  }
  return "all instructions";
}

#if defined(__x86_64__)
bool may_request_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const unsigned bf16 = 1u << 22, tile = 1u << 24;
  if ((d & bf16) == 0 || (d & tile) == 0) return false;
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(2)
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(__x86_64__)
// Older versions of Clang have no names for these.
bool has_f16c_and_lzcnt() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const unsigned f16c = 1u << 29, lzcnt = 1u << 5;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & f16c) == 0) return false;
  return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & lzcnt) != 0;
}
#endif

std::vector<Instructions> find_instructions() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  std::vector<Instructions> found{Instructions::generic};
  // What Highway asks of SSE4, AVX2 and AVX-512, so that its choice and ours cannot differ.
  const bool sse4 =
      __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes");
  const bool avx2 = sse4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    has_f16c_and_lzcnt() && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (sse4) found.push_back(Instructions::sse4);
  if (avx2) found.push_back(Instructions::avx2);
  if (avx512) found.push_back(Instructions::avx512);
  if (bf16) found.push_back(Instructions::avx512_bf16);
  if (bf16 && may_request_amx()) found.push_back(Instructions::amx);
  return found;
#elif defined(__aarch64__)
  return {Instructions::neon};
#else
  return {Instructions::generic};
#endif
}

uint32_t find_usable() {
  uint32_t bits = 0;
  for (const Instructions set : instructions_of_cpu())
    if (set <= limit) bits |= 1u << static_cast<int>(set);
  usable = bits;
  return bits;
}

}  // namespace

const std::vector<std::string>& instruction_names() {
  static const std::vector<std::string> names{"generic", "neon",        "sse4", "avx2",
                                              "avx512",  "avx512-bf16", "amx",  "auto"};
  return names;
}

const std::string& name_of(Instructions set) { return instruction_names()[static_cast<size_t>(set)]; }

Instructions parse_instructions(std::string_view text, std::string_view where) {
  const std::vector<std::string>& names = instruction_names();
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end())
    throw UsageError(fmt::format("{} = \"{}\": must be one of {}", where, text, fmt::join(names, ", ")));
  return static_cast<Instructions>(found - names.begin());
}

const std::vector<Instructions>& instructions_of_cpu() {
  static const std::vector<Instructions> found = find_instructions();
  return found;
}

void check_offered(Instructions wanted, std::string_view where, const std::vector<Instructions>& offered) {
  if (wanted == Instructions::any) return;
  if (std::find(offered.begin(), offered.end(), wanted) != offered.end()) return;
  std::string choices = "auto";
  for (const Instructions set : offered) choices += (set == offered.back() ? " or " : ", ") + name_of(set);
  fail("{} = \"{}\": this CPU has up to {}; choose {}", where, name_of(wanted), printed_name(offered.back()),
       choices);
}

void set_instruction_limit(Instructions most) {
  limit = most;
  find_usable();
}

Instructions instruction_limit() { return limit; }

bool may_use(Instructions set) {
  uint32_t bits = usable.load(std::memory_order_relaxed);
  if (bits == 0) bits = find_usable();
  return bits >> static_cast<int>(set) & 1;
}

}  // namespace longstride
