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

// The model as far as a rank's rows go.
ModelConfig of_rank(ModelConfig config, const ComputePlan& plan) {
  const SequenceRanks& ranks = plan.sequence;
  if (!ranks.shared()) return config;
  LONGSTRIDE_CHECK(
      config.position_tables().empty(),
      "ranks cannot share the sequences of a model with tables of positions; set model.positions = "
      "\"rotary\", or let each rank have whole sequences");
  LONGSTRIDE_CHECK(
      !plan.training || plan.recompute,
      "ranks that share sequences recompute their activations; set train.activations = \"recompute\"");
  config.context /= ranks.parts;
  return config;
}

std::unique_ptr<SharedAttention> shared_attention(const ModelConfig& config, const ComputePlan& plan) {
  if (!plan.sequence.shared()) return nullptr;
  return std::make_unique<SharedAttention>(config, plan.batch, plan.device, plan.sequence,
                                           attention_plans_of(config, plan.device, false));
}

std::unique_ptr<SharedConvolution> shared_convolution(const ModelConfig& config, const ComputePlan& plan) {
  if (!plan.sequence.shared() || !config.convolves()) return nullptr;
  return std::make_unique<SharedConvolution>(config, plan.batch, plan.sequence);
}

// A chunk as one sequence.
Tensor tokens_of(const Tensor& tokens, const RankPositions::Chunk& chunk) {
  const Tensor flat = tokens.reshaped({tokens.count()});
  return flat.rows(chunk.whole, chunk.whole + chunk.count).reshaped({1, chunk.count});
}

bool offloads(const ComputePlan& plan) {
  return plan.training && plan.offload && plan.device.kind != DeviceKind::cpu;
}

}  // namespace

Transformer::Workspace Transformer::allocate_workspace(const ModelConfig& whole, const ComputePlan& plan,
                                                       const SharedAttention* shared,
                                                       const SharedConvolution* convolution, Arena& arena) {
  const ModelConfig config = of_rank(whole, plan);
  const int64_t rows = plan.batch * config.context, d = config.width;
  Workspace w;
  int64_t streams = plan.training ? config.layers + 1 : 1;
  if (offloads(plan)) streams = std::min(streams, OffloadedInputs::kResident);
  for (int64_t i = 0; i < streams; ++i) w.streams.push_back(arena.allocate(DType::f32, {rows, d}));
  const bool keep = plan.training && !plan.recompute;
  for (int64_t i = 0; i < (keep ? config.layers : 1); ++i)
    w.activations.push_back(
        BlockActivations::allocate(config, plan.batch, whole.context, plan.product, keep, arena));
  if (config.mixes_values() && !keep) w.values.first = arena.allocate(plan.product, {rows, d});
  w.activation_bytes = arena.used();
  w.temporaries = BlockTemporaries::allocate(config, plan.batch, whole.context, logit_rows(plan.device, rows),
                                             plan.product, plan.training, arena);
  if (plan.training) w.d_stream = arena.allocate(DType::f32, {rows, d});
  if (plan.training && config.mixes_values()) w.values.d_first = arena.allocate(DType::f32, {rows, d});
  w.mean = arena.allocate(DType::f32, {rows});
  w.rstd = arena.allocate(DType::f32, {rows});
  w.rotation = allocate_rotation(config, config.context, arena);
  if (shared != nullptr) {
    w.shared = shared->allocate(plan.product, plan.training && plan.keep_received, arena);
    if (convolution != nullptr) w.shared_convolution = convolution->allocate(plan.product, arena);
    w.own_tokens = arena.allocate(DType::u8, {rows});
    w.own_loss = arena.allocate(DType::f32, {rows});
  }
  return w;
}

int64_t Transformer::scratch_bytes(const ModelConfig& whole, const ComputePlan& plan,
                                   std::span<const std::shared_ptr<const AttentionPlan>> attention) {
  const ModelConfig config = of_rank(whole, plan);
  int64_t bytes = 0;
  for (const auto& layer : attention)
    bytes = std::max(
        bytes, block_scratch_bytes(config, plan.batch, plan.product, plan.training, plan.device, *layer));
  const int64_t rows = plan.batch * config.context;
  bytes = std::max(bytes, linear_scratch_bytes(plan.device, logit_rows(plan.device, rows), config.width,
                                               kVocabulary, plan.product));
  if (plan.training && plan.sequence.shared() && config.convolves())
    bytes =
        std::max(bytes, causal_convolution_scratch_bytes(
                            plan.device, rows + 2 * plan.batch * SharedConvolution::kBefore, config.width));
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
  const auto attention = attention_plans_of(config, plan.device, false);
  const auto shared = shared_attention(config, plan);
  const auto convolution = shared_convolution(config, plan);
  const auto workspace =
      Transformer::allocate_workspace(config, plan, shared.get(), convolution.get(), arena);
  memory.activations = workspace.activation_bytes;
  memory.temporaries =
      arena.peak() - workspace.activation_bytes + Transformer::scratch_bytes(config, plan, attention);
  memory.plans = attention_plan_bytes(plan.device, attention) + (shared ? shared->bytes() : 0);
  if (offloads(plan))
    memory.offloaded = OffloadedInputs::bytes(config.layers, workspace.streams.front().bytes());
  return memory;
}

Transformer::Transformer(const ModelConfig& config, const ComputePlan& plan)
    : config_(config),
      own_(of_rank(config, plan)),
      plan_(plan),
      attention_(attention_plans_of(config, plan.device, !plan.sequence.shared())),
      shared_(shared_attention(config, plan)),
      shared_convolution_(shared_convolution(config, plan)) {
  LONGSTRIDE_CHECK(plan.batch >= 1, "batch = {}, must be at least 1", plan.batch);
  LONGSTRIDE_CHECK(!plan.offload || plan.recompute, "what is offloaded is the inputs of recomputation");
  for (int64_t layer = 0; layer < config.layers; ++layer)
    attention_of_layer_.push_back(attention_[layer % attention_.size()].get());
  Arena measure = Arena::measuring(plan.device);
  allocate_workspace(config, plan, shared_.get(), shared_convolution_.get(), measure);
  arena_ = Arena(plan.device, measure.peak());
  work_ = allocate_workspace(config, plan, shared_.get(), shared_convolution_.get(), arena_);
  if (shared_) {
    shared_->use(plan.device, work_.shared);
    if (shared_convolution_) shared_convolution_->use(plan.device, work_.shared_convolution);
    // The chunks of the first sequence; those of the others are the same.
    for (const RankPositions::Chunk& chunk : shared_->positions().chunks())
      if (work_.rotation && chunk.own < own_.context)
        fill_rotation(config, work_.rotation.rows(chunk.own, chunk.own + chunk.count), chunk.first);
  } else {
    fill_rotation(config, work_.rotation);
  }
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
  call.config = &own_;
  call.shared = shared_.get();
  call.shared_convolution = shared_convolution_.get();
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

Tensor Transformer::own_tokens(const Tensor& tokens) const {
  const Tensor flat = tokens.reshaped({tokens.count()});
  if (!shared_) return flat;
  shared_->positions().from_whole(flat, work_.own_tokens);
  return work_.own_tokens;
}

Tensor Transformer::own_loss(const Tensor& loss) const {
  return shared_ ? work_.own_loss : loss.reshaped({loss.count()});
}

void Transformer::spread_loss(const Tensor& loss, bool to_all) const {
  if (!shared_) return;
  const Tensor whole = loss.reshaped({loss.count()});
  fill_zero(whole);
  shared_->positions().to_whole(work_.own_loss, whole);
  if (!to_all) return;
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  const SequenceRanks& ranks = plan_.sequence;
  for (int64_t part = 0; part < ranks.parts; ++part) {
    if (part == ranks.index) continue;
    const int rank = ranks.first_rank + static_cast<int>(part);
    SequenceRanks theirs = ranks;
    theirs.index = part;
    const auto slice = [&](const RankPositions::Chunk& chunk) {
      return whole.rows(chunk.whole, chunk.whole + chunk.count);
    };
    for (const RankPositions::Chunk& chunk : shared_->positions().chunks())
      out.push_back({rank, slice(chunk).data, slice(chunk).bytes()});
    const RankPositions positions(config_.context, plan_.batch, theirs);
    for (const RankPositions::Chunk& chunk : positions.chunks())
      in.push_back({rank, slice(chunk).data, slice(chunk).bytes()});
  }
  (*ranks.devices)->exchange(out, in);
}

void Transformer::embed(const ModelParameters& parameters, const Tensor& tokens) {
  if (!shared_) return run(context_, EmbeddingForward{tokens, parameters.embedding, input(0)});
  for (const RankPositions::Chunk& chunk : shared_->positions().chunks())
    run(context_, EmbeddingForward{tokens_of(tokens, chunk), parameters.embedding,
                                   input(0).rows(chunk.own, chunk.own + chunk.count), chunk.first});
}

void Transformer::run_blocks(const ModelParameters& parameters, const Tensor& tokens,
                             const TrainingPass* pass, const LayerSink* sink) {
  embed(parameters, tokens);
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
    const Tensor& qkv = saved(layer).qkv;
    const int64_t qk = config_.qk();
    (*sink)(layer, {by_head(qkv.columns(0, qk)), by_head(qkv.columns(qk, 2 * qk)),
                    by_head(qkv.columns(2 * qk, config_.qkv())),
                    config_.convolves() ? work_.temporaries.unconvolved.split_first(plan_.batch) : Tensor{}});
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
  const Tensor flat_loss = own_loss(loss), flat_tokens = own_tokens(tokens);
  run_head(parameters, flat_tokens.count(), [&](int64_t begin, const Tensor& logits) {
    const int64_t end = begin + logits.shape[0];
    run(context_, CrossEntropyForward{logits, flat_tokens.rows(begin, end), flat_loss.rows(begin, end)});
  });
  spread_loss(loss, true);
}

void Transformer::logits(const ModelParameters& parameters, const Tensor& tokens, const LogitsSink& sink,
                         const std::function<void()>& after_layer) {
  check_tokens(tokens, {});
  LONGSTRIDE_CHECK(!shared_, "ranks that share sequences have no logits of whole ones");
  const LayerSink told = [&](int64_t, const LayerRows&) { after_layer(); };
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
  const Tensor flat_loss = own_loss(loss), flat_tokens = own_tokens(tokens);
  const int64_t rows = flat_tokens.count(), chunk = logit_rows(plan_.device, rows);
  const Tensor &normed = work_.temporaries.branch, &d_normed = work_.temporaries.normed_again;
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
  run_residual(context_, shared_ ? &shared_->positions() : nullptr,
               ResidualBackward{.dy = d_normed,
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
  if (!shared_) return run(context_, EmbeddingBackward{tokens, stream, gradients.embedding});
  for (const RankPositions::Chunk& c : shared_->positions().chunks())
    run(context_, EmbeddingBackward{tokens_of(tokens, c), stream.rows(c.own, c.own + c.count),
                                    gradients.embedding, c.first});
  spread_loss(loss, false);
}

void Transformer::prefill(const ModelParameters& parameters, const Tensor& tokens, const LayerSink& sink) {
  check_tokens(tokens, {});
  LONGSTRIDE_CHECK(!shared_, "a sampler's beginning is not shared among ranks");
  run_blocks(parameters, tokens, nullptr, &sink);
}

}  // namespace longstride
