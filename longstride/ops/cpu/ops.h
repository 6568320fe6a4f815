// The ops on the CPU. Contracts stand in longstride/ops/*.h; arguments have been checked by dispatch.cpp.
// Attention declares its own in cpu/attention.h.
//
// Every op gives the same bits from run to run for a given machine; the comment at the head of each source
// says whether also for any number of threads.
#pragma once

#include "longstride/ops/adam.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/embedding.h"
#include "longstride/ops/quantized_linear.h"
#include "longstride/ops/residual.h"

namespace longstride::cpu {

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
void embedding_one(const OpContext& context, const Tensor& previous, std::span<const int64_t> positions,
                   const EmbeddingTables& tables, const Tensor& y);
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
void linear_each_row(const OpContext& context, const Tensor& x, const Tensor& w, const Tensor& b,
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

// Whether products of bf16 values run in hardware; on machines without, f32 arithmetic computes the same.
// Tests switch it off to reach the other path.
void use_bf16_hardware(bool use);
// cpu_has_bf16(), oneDNN multiplies them, and it is not switched off.
bool linear_has_bf16();

}  // namespace longstride::cpu
