// The instruction sets of the CPU ops: a limit for all of them, and which ones they use.
#pragma once

#include <string>
#include <vector>

#include "longstride/device/instructions.h"

namespace longstride::cpu {

// From now on everything uses at most `most`, which must be among instructions_of_cpu(), or any. Call it at
// the start of a program: oneDNN takes its limit only once, before its first product (Error otherwise), and
// its lowest is SSE4.1. This replaces ONEDNN_MAX_CPU_ISA, unless `most` is any or AMX.
void limit_instructions(Instructions most);
// The same for all but oneDNN, at any time between ops.
void limit_our_instructions(Instructions most);

// The target that Highway dispatches our own kernels to, as in "AVX3".
std::string vector_instruction_set();
// The most that oneDNN uses for matrix products, as in "AVX-512 BF16".
std::string product_instruction_set();

// Which instructions a part of the backend uses, as in {"attention bf16", "AMX"}.
struct InstructionUse {
  std::string part, instructions;
};
std::vector<InstructionUse> instructions_in_use();

}  // namespace longstride::cpu
