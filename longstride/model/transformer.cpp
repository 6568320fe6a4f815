#include "longstride/model/transformer.h"

#include <algorithm>

#include "longstride/model/attention_plans.h"
#include "longstride/model/rotary.h"
#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/residual.h"

namespace longstride {

namespace {

// Logits exist for this many positions at a time: enough to give every core of the device work.
int64_t logit_rows(Device device, int64_t rows) {
  return std::min<int64_t>(rows, device.kind == DeviceKind::cpu ? 4096 : 16384);
}

Dropout dropout_of(const ModelConfig& config, const TrainingPass& pass, int64_t layer, uint32_t site) {
  return {{pass.seed, random_stream::kDropout + 2 * static_cast<uint32_t>(layer) + site, pass.step},
          pass.dropout,
          pass.step_from,
          pass.first_sequence * config.context * config.width};
}

bool offloads(const ComputePlan& plan) {
  return plan.training && plan.offload && plan.device.kind != DeviceKind::cpu;
}

}  // namespace

Transformer::Workspace Transformer::allocate_workspace(const ModelConfig& config, const ComputePlan& plan,
                                                       Arena& arena) {
  const int64_t rows = plan.batch * config.context, d = config.width;
  Workspace w;
  int64_t streams = plan.training ? config.layers + 1 : 1;
  if (offloads(plan)) streams = std::min(streams, OffloadedInputs::kResident);
  for (int64_t i = 0; i < streams; ++i) w.streams.push_back(arena.allocate(DType::f32, {rows, d}));
  const bool keep = plan.training && !plan.recompute;
  for (int64_t i = 0; i < (keep ? config.layers : 1); ++i)
    w.activations.push_back(BlockActivations::allocate(config, plan.batch, plan.product, keep, arena));
  if (config.mixes_values() && !keep) w.values.first = arena.allocate(plan.product, {rows, d});
  w.activation_bytes = arena.used();
  w.temporaries = BlockTemporaries::allocate(config, plan.batch, logit_rows(plan.device, rows), plan.product,
                                             plan.training, arena);
  if (plan.training) w.d_stream = arena.allocate(DType::f32, {rows, d});
  if (plan.training && config.mixes_values()) w.values.d_first = arena.allocate(DType::f32, {rows, d});
  w.mean = arena.allocate(DType::f32, {rows});
  w.rstd = arena.allocate(DType::f32, {rows});
  w.rotation = allocate_rotation(config, arena);
  return w;
}

int64_t Transformer::scratch_bytes(const ModelConfig& config, const ComputePlan& plan,
                                   std::span<const std::shared_ptr<const AttentionPlan>> attention) {
  int64_t bytes = 0;
  for (const auto& layer : attention)
    bytes = std::max(
        bytes, block_scratch_bytes(config, plan.batch, plan.product, plan.training, plan.device, *layer));
  const int64_t rows = plan.batch * config.context;
  bytes = std::max(bytes, linear_scratch_bytes(plan.device, logit_rows(plan.device, rows), config.width,
                                               kVocabulary, plan.product));
  if (plan.training) {
    bytes = std::max(bytes, layer_norm_backward_scratch_bytes(plan.device, rows, config.width));
    bytes =
        std::max(bytes, embedding_backward_scratch_bytes(plan.device, plan.batch, config.context, kVocabulary,
                                                         config.width, config.position_tables()));
  }
  return bytes;
}

MemoryPlan plan_memory(const ModelConfig& config, const ComputePlan& plan, bool average) {
  const std::vector<ParameterSpec> table = parameter_table(config);
  MemoryPlan memory;
  memory.weights = ParameterStore::bytes(table, DType::f32);
  if (plan.product != DType::f32)
    memory.products = ParameterStore::bytes(table, plan.product, ParameterStore::Which::products);
  if (plan.training) {
    memory.gradients = memory.weights;
    memory.optimizer = 2 * memory.weights;
    if (average) memory.average = memory.weights;
  }
  Arena arena = Arena::measuring(plan.device);
  const auto workspace = Transformer::allocate_workspace(config, plan, arena);
  const auto attention = attention_plans_of(config, plan.device, false);
  memory.activations = workspace.activation_bytes;
  memory.temporaries =
      arena.peak() - workspace.activation_bytes + Transformer::scratch_bytes(config, plan, attention);
  memory.plans = attention_plan_bytes(plan.device, attention);
  if (offloads(plan))
    memory.offloaded = OffloadedInputs::bytes(config.layers, workspace.streams.front().bytes());
  return memory;
}

Transformer::Transformer(const ModelConfig& config, const ComputePlan& plan)
    : config_(config), plan_(plan), attention_(attention_plans_of(config, plan.device, true)) {
  LONGSTRIDE_CHECK(plan.batch >= 1, "batch = {}, must be at least 1", plan.batch);
  LONGSTRIDE_CHECK(!plan.offload || plan.recompute, "what is offloaded is the inputs of recomputation");
  for (int64_t layer = 0; layer < config.layers; ++layer)
    attention_of_layer_.push_back(attention_[layer % attention_.size()].get());
  Arena measure = Arena::measuring(plan.device);
  allocate_workspace(config, plan, measure);
  arena_ = Arena(plan.device, measure.peak());
  work_ = allocate_workspace(config, plan, arena_);
  fill_rotation(config, work_.rotation);
  scratch_ = Arena(plan.device, scratch_bytes(config, plan, attention_));
  if (offloads(plan)) offloaded_ = std::make_unique<OffloadedInputs>(config.layers, work_.streams);
  context_ = {plan.device, &scratch_};
}

int64_t Transformer::planned_attention_bytes() const {
  return attention_plan_bytes(plan_.device, attention_);
}

const BlockActivations& Transformer::saved(int64_t layer) const {
  return work_.activations[work_.activations.size() > 1 ? layer : 0];
}

SharedValues Transformer::shared_values() const {
  SharedValues values = work_.values;
  if (config_.mixes_values() && !values.first)
    values.first = saved(0).qkv.columns(2 * config_.qk(), config_.qkv());
  return values;
}

BlockCall Transformer::block_call(const ModelParameters& parameters, int64_t layer,
                                  const TrainingPass& pass) const {
  BlockCall call;
  call.config = &config_;
  call.parameters = &parameters.blocks[layer];
  call.attention = attention_of_layer_[layer];
  call.rotation = work_.rotation;
  call.batch = plan_.batch;
  call.layer = layer;
  call.values = shared_values();
  call.attention_dropout = dropout_of(config_, pass, layer, 0);
  call.feed_forward_dropout = dropout_of(config_, pass, layer, 1);
  call.product = plan_.product;
  // Where activations are not kept, the output is no longer needed when `mid` is recomputed.
  call.mid = saved(layer).mid ? saved(layer).mid : input(layer + 1);
  return call;
}

NextNorm Transformer::norm_after(const ModelParameters& parameters, int64_t layer) const {
  if (layer + 1 == config_.layers)
    return {parameters.final_gain, parameters.final_bias, kFinalNormEpsilon, work_.mean, work_.rstd};
  const BlockParameters& next = parameters.blocks[layer + 1];
  return {next.norm1_gain, next.norm1_bias, kNormEpsilon, saved(layer + 1).mean1, saved(layer + 1).rstd1};
}

void Transformer::check_tokens(const Tensor& tokens, const Tensor& loss) const {
  LONGSTRIDE_CHECK(tokens.dtype == DType::u8 && tokens.rank == 2 && tokens.shape[0] == plan_.batch &&
                       tokens.shape[1] == config_.context,
                   "tokens are {}, the model was planned for u8 ({}, {})", tokens.describe(), plan_.batch,
                   config_.context);
  LONGSTRIDE_CHECK(!loss || (loss.dtype == DType::f32 && loss.count() == tokens.count() && loss.contiguous()),
                   "loss is {}, needs the shape of the tokens {} in f32", loss.describe(), tokens.describe());
}

void Transformer::run_blocks(const ModelParameters& parameters, const Tensor& tokens,
                             const TrainingPass* pass, const KeyValueSink* sink) {
  run(context_, EmbeddingForward{tokens, parameters.embedding, input(0)});
  run(context_, LayerNormForward{input(0), parameters.blocks[0].norm1_gain, parameters.blocks[0].norm1_bias,
                                 kNormEpsilon, work_.temporaries.branch, saved(0).mean1, saved(0).rstd1});
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    if (offloaded_ && pass != nullptr) offloaded_->forward(layer);
    block_forward(context_, block_call(parameters, layer, pass != nullptr ? *pass : TrainingPass{}),
                  input(layer), saved(layer), work_.temporaries, norm_after(parameters, layer),
                  input(layer + 1));
    if (sink == nullptr) continue;
    const auto by_head = [&](const Tensor& t) {
      return t.split_last(config_.heads).split_first(plan_.batch);
    };
    (*sink)(layer, by_head(saved(layer).qkv.columns(config_.qk(), 2 * config_.qk())),
            by_head(saved(layer).qkv.columns(2 * config_.qk(), config_.qkv())),
            config_.convolves() ? work_.temporaries.unconvolved.split_first(plan_.batch) : Tensor{});
  }
}

template <class Use>
void Transformer::run_head(const ModelParameters& parameters, int64_t rows, const Use& use) {
  const int64_t chunk = logit_rows(plan_.device, rows);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor logits = work_.temporaries.logits.rows(0, end - begin);
    run(context_,
        LinearForward{work_.temporaries.branch.rows(begin, end), parameters.output_weight, {}, logits});
    use(begin, logits);
  }
}

void Transformer::evaluate(const ModelParameters& parameters, const Tensor& tokens, const Tensor& loss) {
  check_tokens(tokens, loss);
  run_blocks(parameters, tokens, nullptr, nullptr);
  const int64_t rows = tokens.count();
  const Tensor flat_loss = loss.reshaped({rows}), flat_tokens = tokens.reshaped({rows});
  run_head(parameters, rows, [&](int64_t begin, const Tensor& logits) {
    const int64_t end = begin + logits.shape[0];
    run(context_, CrossEntropyForward{logits, flat_tokens.rows(begin, end), flat_loss.rows(begin, end)});
  });
}

void Transformer::logits(const ModelParameters& parameters, const Tensor& tokens, const LogitsSink& sink,
                         const std::function<void()>& after_layer) {
  check_tokens(tokens, {});
  const KeyValueSink told = [&](int64_t, const Tensor&, const Tensor&, const Tensor&) { after_layer(); };
  run_blocks(parameters, tokens, nullptr, after_layer ? &told : nullptr);
  run_head(parameters, tokens.count(), sink);
}

void Transformer::forward_backward(const ModelParameters& parameters, const Tensor& tokens,
                                   const TrainingPass& pass, const Tensor& loss,
                                   const ModelParameters& gradients) {
  LONGSTRIDE_CHECK(plan_.training, "this model was planned for inference, not training");
  check_tokens(tokens, loss);
  run_blocks(parameters, tokens, &pass, nullptr);

  // Head: logits of a chunk of rows exist only until their gradient has been passed on.
  const int64_t rows = tokens.count(), chunk = logit_rows(plan_.device, rows);
  const Tensor &normed = work_.temporaries.branch, &d_normed = work_.temporaries.normed_again;
  const Tensor flat_loss = loss.reshaped({rows}), flat_tokens = tokens.reshaped({rows});
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor logits = work_.temporaries.logits.rows(0, end - begin);
    run(context_, LinearForward{normed.rows(begin, end), parameters.output_weight, {}, logits});
    run(context_, CrossEntropyBackward{logits, flat_tokens.rows(begin, end), pass.scale,
                                       flat_loss.rows(begin, end), logits, pass.loss_scale});
    run(context_,
        LinearBackwardWeight{logits, normed.rows(begin, end), plan_.product, gradients.output_weight, {}});
    run(context_, LinearBackwardInput{logits, parameters.output_weight, d_normed.rows(begin, end)});
  }

  const Tensor& stream = work_.d_stream;
  const int64_t last = config_.layers - 1;
  fill_zero(stream);
  run(context_, ResidualBackward{.dy = d_normed,
                                 .x = input(config_.layers),
                                 .gain = parameters.final_gain,
                                 .mean = work_.mean,
                                 .rstd = work_.rstd,
                                 .dx = stream,
                                 .dgain = gradients.final_gain,
                                 .dbias = gradients.final_bias,
                                 .dropout = dropout_of(config_, pass, last, 1),
                                 .dbranch = work_.temporaries.branch});
  for (int64_t layer = last; layer >= 0; --layer) {
    if (offloaded_) offloaded_->backward(layer);
    const BlockCall call = block_call(parameters, layer, pass);
    const Dropout before = dropout_of(config_, pass, layer - 1, 1);
    if (plan_.recompute) block_recompute(context_, call, input(layer), saved(layer), work_.temporaries);
    block_backward(context_, call, input(layer), saved(layer), work_.temporaries, gradients.blocks[layer],
                   layer > 0 ? &before : nullptr, stream);
    if (pass.block_done) pass.block_done(layer);
  }
  run(context_, EmbeddingBackward{tokens, stream, gradients.embedding});
}

void Transformer::prefill(const ModelParameters& parameters, const Tensor& tokens, const KeyValueSink& sink) {
  check_tokens(tokens, {});
  run_blocks(parameters, tokens, nullptr, &sink);
}

}  // namespace longstride
