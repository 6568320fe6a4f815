// The instruction sets of the CPU, and the limit on those that may be used. Every part of the CPU backend
// has the same limit, so that any path can be tested on a machine that has a better one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longstride {

// In ascending order on each kind of CPU; a set includes those before it. x86: generic, sse4 to amx; ARM:
// neon.
enum class Instructions { generic, neon, sse4, avx2, avx512, avx512_bf16, amx, any };

// As a user writes them: "generic", "avx512-bf16"; Instructions::any is "auto".
const std::vector<std::string>& instruction_names();
const std::string& name_of(Instructions set);
// Throws UsageError, opened by `where`, if the text is none of the names.
Instructions parse_instructions(std::string_view text, std::string_view where);

// The sets that this CPU and its operating system offer, in ascending order and never empty. The first call
// asks the system for permission to use AMX.
const std::vector<Instructions>& instructions_of_cpu();
// Throws Error, as in `compute.instructions = "amx": this CPU has up to AVX2; choose auto, generic, ...`, if
// `wanted` is not among those `offered`. `where` is the setting's name.
void check_offered(Instructions wanted, std::string_view where, const std::vector<Instructions>& offered);

// The limit; `any` unless set. cpu::limit_instructions() sets it, and tells other libraries too.
void set_instruction_limit(Instructions most);
Instructions instruction_limit();
// The CPU has `set` and the limit allows it.
bool may_use(Instructions set);

}  // namespace longstride
