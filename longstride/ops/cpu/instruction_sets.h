// Which instruction sets the CPU ops chose on this machine, for `longstride selftest` and bug reports.
#pragma once

#include <string>

namespace longstride::cpu {

// The target that Highway dispatches our own kernels to, as in "AVX3".
std::string vector_instruction_set();
// The most that oneDNN uses for matrix products, as in "AVX-512 BF16".
std::string product_instruction_set();

}  // namespace longstride::cpu
