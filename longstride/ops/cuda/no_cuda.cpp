// Stands in for the .cu files in a build without CUDA. Nothing gets here: no tensor lies on a GPU then.
#include "longstride/base/check.h"
#include "longstride/device/cuda.h"
#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/cuda/ops.h"
#include "longstride/ops/decode_step.h"
#include "longstride/ops/key_cache.h"
#include "longstride/ops/query_key.h"
#include "longstride/ops/update.h"
#include "longstride/ops/value_mix.h"

namespace longstride::cuda {

namespace {
[[noreturn]] void unavailable() { fail("{}", why_not(0)); }
}  // namespace

void activation_forward(const OpContext&, const Tensor&, const Tensor&) { unavailable(); }
void activation_backward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  unavailable();
}
void adam_step(const OpContext&, const AdamStep&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
               const Tensor&, const Tensor&) {
  unavailable();
}
double sum_of_squares(const OpContext&, const Tensor&) { unavailable(); }
void convert(const OpContext&, const Tensor&, const Tensor&) { unavailable(); }
void cross_entropy_forward(const OpContext&, const Tensor&, const Tensor&, const Tensor&) { unavailable(); }
void cross_entropy_backward(const OpContext&, const Tensor&, const Tensor&, float, const Tensor&,
                            const Tensor&, const Tensor&) {
  unavailable();
}
void dropout_add_forward(const OpContext&, const Tensor&, const Tensor&, const Dropout&, const Tensor&) {
  unavailable();
}
void dropout_backward(const OpContext&, const Tensor&, const Dropout&, const Tensor&) { unavailable(); }
void embedding_forward(const OpContext&, const Tensor&, const EmbeddingTables&, const Tensor&) {
  unavailable();
}
int64_t embedding_backward_scratch_bytes(int64_t, int64_t, int64_t, int64_t, std::span<const int64_t>) {
  unavailable();
}
void embedding_backward(const OpContext&, const Tensor&, const Tensor&, const EmbeddingTables&) {
  unavailable();
}
void layer_norm_forward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, float, const Tensor&,
                        const Tensor&, const Tensor&) {
  unavailable();
}
void layer_norm_apply(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const Tensor&, const Tensor&) {
  unavailable();
}
int64_t layer_norm_backward_scratch_bytes(int64_t, int64_t) { unavailable(); }
void layer_norm_backward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                         const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  unavailable();
}
int64_t linear_scratch_bytes(int64_t, int64_t, int64_t, DType, DType) { unavailable(); }
void linear_forward(const OpContext&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  unavailable();
}
void linear_backward_input(const OpContext&, const Tensor&, const Tensor&, const Tensor&) { unavailable(); }
void linear_backward_weight(const OpContext&, const Tensor&, const Tensor&, DType, const Tensor&,
                            const Tensor&) {
  unavailable();
}
void query_key_forward(const OpContext&, const QueryKey&) { unavailable(); }
void query_key_backward(const OpContext&, const QueryKey&, const Tensor&) { unavailable(); }
void causal_convolution_forward(const OpContext&, const Tensor&, const Tensor&, int64_t, const Tensor&) {
  unavailable();
}
void causal_convolution_backward(const OpContext&, const Tensor&, const Tensor&, int64_t, const Tensor&,
                                 const Tensor&) {
  unavailable();
}
int64_t causal_convolution_scratch_bytes(int64_t, int64_t) { unavailable(); }
void value_mix(const OpContext&, const ValueMix&) { unavailable(); }
void residual_forward(const OpContext&, const ResidualForward&) { unavailable(); }
void residual_backward(const OpContext&, const ResidualBackward&) { unavailable(); }
void quantize(const OpContext&, const Tensor&, const QuantizedMatrix&) { unavailable(); }
void dequantize(const OpContext&, const QuantizedMatrix&, const Tensor&) { unavailable(); }
void quantized_linear_forward(const OpContext&, const Tensor&, const QuantizedMatrix&, const Tensor&,
                              const Tensor&) {
  unavailable();
}
std::shared_ptr<const AttentionLists> upload_lists(const AttentionPlan&, int) { unavailable(); }
int64_t attention_list_bytes(const AttentionPlan&) { unavailable(); }
void prefer_portable_attention(bool) {}
void attention_forward(const OpContext&, const AttentionPlan&, const AttentionTensors&) { unavailable(); }
void attention_backward(const OpContext&, const AttentionPlan&, const AttentionTensors&,
                        const AttentionGradients&) {
  unavailable();
}
int64_t attention_scratch_bytes(const AttentionPlan&, int64_t, int64_t, int64_t, int64_t) { unavailable(); }
void store_keys(const OpContext&, const KeyCache&, int64_t, int64_t, const Tensor&, const Tensor&) {
  unavailable();
}
struct DecodeSteps::State {};
DecodeSteps::DecodeSteps(const DecodeModel&, int, int64_t, DecodeSchedule) { unavailable(); }
DecodeSteps::~DecodeSteps() = default;
int64_t DecodeSteps::bytes(const DecodeShape&, int64_t) { unavailable(); }
const float* DecodeSteps::step(std::span<const DecodeSequence>) { unavailable(); }
void DecodeSteps::advance(std::span<const DecodeSequence>, int64_t, uint8_t*) { unavailable(); }
int64_t update_table_bytes(std::span<const ParameterSlice>, std::span<const MuonMatrix>, int64_t*) {
  unavailable();
}
void fill_update_table(std::span<const ParameterSlice>, std::span<const MuonMatrix>, void*) { unavailable(); }
void newton_schulz(const OpContext&, NewtonSchulz, const Tensor&) { unavailable(); }
int64_t newton_schulz_scratch_bytes(int64_t, int64_t, int64_t, DType) { unavailable(); }
int64_t muon_scratch_bytes(std::span<const MuonMatrix>, DType) { unavailable(); }
void muon_update(const OpContext&, const UpdateTable&, const UpdateTensors&, UpdateControl*) {
  unavailable();
}
void add_losses(const OpContext&, const Tensor&, UpdateControl*) { unavailable(); }
void update_parameters(const OpContext&, const UpdateTable&, const UpdateTensors&, UpdateControl*) {
  unavailable();
}

}  // namespace longstride::cuda
