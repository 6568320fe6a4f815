// Whether products of bf16 values run in hardware here. Otherwise f32 arithmetic computes the same.
#pragma once

namespace longstride::cpu {

// True if cpu_has_bf16(), oneDNN multiplies bf16, and use_bf16_hardware() has not switched it off.
bool multiplies_bf16();
// For tests of the other path.
void use_bf16_hardware(bool use);

}  // namespace longstride::cpu
