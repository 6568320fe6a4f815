// The ops on NVIDIA GPUs. Contracts stand in longstride/ops/*.h; arguments have been checked by dispatch.cpp.
// Implemented by one .cu an op, or by no_cuda.cpp in a build without CUDA.
//
// Every op queues its work on the GPU's stream and returns; those that return a value wait for it. Branch
// activations may be f32, bf16 or f16. No kernel adds atomically and each product keeps its cuBLAS kernel, so
// every result is the same bits from run to run on one model of GPU.
#pragma once

#include "longstride/ops/adam.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/embedding.h"
#include "longstride/ops/quantized_linear.h"
#include "longstride/ops/residual.h"

namespace longstride::cuda {

void activation_forward(const OpContext& context, const Tensor& x, const Tensor& y);
void activation_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& dx,
                         const Tensor& y);

void adam_step(const OpContext& context, const AdamStep& step, const Tensor& w, const Tensor& g,
               const Tensor& m, const Tensor& v, const Tensor& average, const Tensor& compute);
double sum_of_squares(const OpContext& context, const Tensor& x);
void convert(const OpContext& context, const Tensor& from, const Tensor& to);

void cross_entropy_forward(const OpContext& context, const Tensor& logits, const Tensor& targets,
                           const Tensor& loss);
void cross_entropy_backward(const OpContext& context, const Tensor& logits, const Tensor& targets,
                            float scale, const Tensor& loss, const Tensor& dlogits, const Tensor& times);

void dropout_add_forward(const OpContext& context, const Tensor& x, const Tensor& branch,
                         const Dropout& dropout, const Tensor& y);
void dropout_backward(const OpContext& context, const Tensor& dy, const Dropout& dropout,
                      const Tensor& dbranch);

void embedding_forward(const OpContext& context, const Tensor& tokens, const EmbeddingTables& tables,
                       const Tensor& y);
int64_t embedding_backward_scratch_bytes(int64_t batch, int64_t length, int64_t vocabulary, int64_t width,
                                         std::span<const int64_t> extents);
void embedding_backward(const OpContext& context, const Tensor& tokens, const Tensor& dy,
                        const EmbeddingTables& gradients);

void layer_norm_forward(const OpContext& context, const Tensor& x, const Tensor& gain, const Tensor& bias,
                        float epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd);
void layer_norm_apply(const OpContext& context, const Tensor& x, const Tensor& gain, const Tensor& bias,
                      const Tensor& mean, const Tensor& rstd, const Tensor& y);
int64_t layer_norm_backward_scratch_bytes(int64_t rows, int64_t width);
void layer_norm_backward(const OpContext& context, const Tensor& dy, const Tensor& x, const Tensor& gain,
                         const Tensor& mean, const Tensor& rstd, const Tensor& dx, const Tensor& dgain,
                         const Tensor& dbias);

int64_t linear_scratch_bytes(int64_t rows, int64_t in, int64_t out, DType product, DType stored);
void linear_forward(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
                    const Tensor& y);
void linear_backward_input(const OpContext& context, const Tensor& dy, const Tensor& w, const Tensor& dx);
void linear_backward_weight(const OpContext& context, const Tensor& dy, const Tensor& x, DType product,
                            const Tensor& dw, const Tensor& db);

void residual_forward(const OpContext& context, const ResidualForward& t);
void residual_backward(const OpContext& context, const ResidualBackward& t);
void quantize(const OpContext& context, const Tensor& w, const QuantizedMatrix& q);
void dequantize(const OpContext& context, const QuantizedMatrix& q, const Tensor& w);
void quantized_linear_forward(const OpContext& context, const Tensor& x, const QuantizedMatrix& w,
                              const Tensor& b, const Tensor& y);

// The lists and masks of a plan in the GPU's memory.
class AttentionLists;
std::shared_ptr<const AttentionLists> upload_lists(const AttentionPlan& plan, int device_index);
int64_t attention_list_bytes(const AttentionPlan& plan);  // of the same, counted without a GPU
// Whether calls from now on leave kernels that are for one chip alone aside. For tests and benchmarks.
void prefer_portable_attention(bool prefer);
void attention_forward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t);
void attention_backward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t,
                        const AttentionGradients& gradients);
int64_t attention_scratch_bytes(const AttentionPlan& plan, int64_t batch, int64_t heads, int64_t qk_width,
                                int64_t v_width);

}  // namespace longstride::cuda
