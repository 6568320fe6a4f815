// Whether products of bf16 values run in hardware here; where they do not, f32 arithmetic computes the same.
#pragma once

namespace longstride::cpu {

// cpu_has_bf16(), oneDNN multiplies them, and use_bf16_hardware() has not switched them off.
bool multiplies_bf16();
// Tests switch them off to reach the other path.
void use_bf16_hardware(bool use);

}  // namespace longstride::cpu
