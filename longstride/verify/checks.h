// All checks, one on each line. `selftest` runs every one. The tests of ops run them on each device, and
// with each instruction set of the CPU.
#pragma once

#include "longstride/base/dtype.h"
#include "longstride/verify/check.h"

namespace longstride::verify {

std::vector<Check> check_linear(Device device, Effort effort);
std::vector<Check> check_quantized_linear(Device device, Effort effort);
std::vector<Check> check_layer_norm(Device device, Effort effort);
std::vector<Check> check_activation(Device device, Effort effort);
std::vector<Check> check_dropout(Device device, Effort effort);
std::vector<Check> check_query_key(Device device, Effort effort);
std::vector<Check> check_value_mix(Device device, Effort effort);
std::vector<Check> check_causal_convolution(Device device, Effort effort);
std::vector<Check> check_residual(Device device, Effort effort);
std::vector<Check> check_embedding(Device device, Effort effort);
std::vector<Check> check_cross_entropy(Device device, Effort effort);
std::vector<Check> check_ordered_sum(Device device, Effort effort);
std::vector<Check> check_rows(Device device, Effort effort);
std::vector<Check> check_adam(Device device, Effort effort);
std::vector<Check> check_update(Device device, Effort effort);
std::vector<Check> check_muon(Device device, Effort effort);
// Forward, backward and a sampler's key cache, every kind of term.
std::vector<Check> check_attention(Device device, Effort effort);
// The cases part, part + parts, part + 2 parts, .. of these. The whole takes long under tools that look at every access.
std::vector<Check> check_attention_part(Device device, Effort effort, size_t part, size_t parts);
// A few sequences of heads of this width, in `dtype`, that are long enough for every ring of tiles to come round,
// and some so many that a block of a GPU has several in turn.
std::vector<Check> check_attention_rings(Device device, DType dtype, int64_t width);
// Loss and every gradient of whole models.
std::vector<Check> check_model(Device device, Effort effort);
// Logits and drawn bytes of the same models, one byte after another.
std::vector<Check> check_decode(Device device, Effort effort);

struct CheckGroup {
  const char* name;
  std::vector<Check> (*run)(Device, Effort);
};

inline constexpr CheckGroup kCheckGroups[] = {
    {"linear", check_linear},
    {"quantized linear", check_quantized_linear},
    {"layer norm", check_layer_norm},
    {"activation", check_activation},
    {"dropout", check_dropout},
    {"query-key", check_query_key},
    {"value mix", check_value_mix},
    {"causal convolution", check_causal_convolution},
    {"residual", check_residual},
    {"embedding", check_embedding},
    {"cross-entropy", check_cross_entropy},
    {"ordered sum", check_ordered_sum},
    {"rows", check_rows},
    {"adam", check_adam},
    {"update", check_update},
    {"muon", check_muon},
    {"attention", check_attention},
    {"model", check_model},
    {"decode", check_decode},
};

}  // namespace longstride::verify
