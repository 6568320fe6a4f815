#include "longstride/sample/gpu_steps.h"

#include "longstride/model/rotary.h"

namespace longstride {

namespace {

ModelConfig decoded(const ModelConfig& config, const DecoderOptions& options) {
  return config.shortened(options.positions > 0 ? options.positions : config.context);
}

// The angles of the positions that are decoded, on the GPU; empty for models that are not rotary.
class Rotation {
 public:
  Rotation(const ModelConfig& seen, Device device)
      : arena_(device, bytes(seen, device)), table_(allocate_rotation(seen, arena_)) {
    fill_rotation(seen, table_);
  }
  static int64_t bytes(const ModelConfig& seen, Device device) {
    Arena measure = Arena::measuring(device);
    allocate_rotation(seen, measure);
    return measure.peak();
  }
  const Tensor& table() const { return table_; }

 private:
  Arena arena_;
  Tensor table_;
};

DecodeModel decode_model(const ModelConfig& config, const ModelParameters& parameters,
                         const KeyCaches& caches, const Rotation& rotation) {
  DecodeModel model;
  model.embedding = parameters.embedding;
  for (int64_t i = 0; i < caches.layers(); ++i) {
    const BlockParameters& p = parameters.blocks[static_cast<size_t>(i)];
    model.layers.push_back({p.norm1_gain, p.norm1_bias, p.qkv_weight, p.qkv_bias, p.projection_weight,
                            p.projection_bias, p.norm2_gain, p.norm2_bias, p.up_weight, p.up_bias,
                            p.down_weight, p.down_bias, caches.layer(i), p.convolution, caches.recent(i)});
  }
  model.final_gain = parameters.final_gain, model.final_bias = parameters.final_bias;
  model.output_weight = parameters.output_weight;
  model.epsilon = kNormEpsilon, model.final_epsilon = kFinalNormEpsilon;
  model.rotation = rotation.table(), model.qk_norm = config.qk_norm;
  if (config.mixes_values()) model.value_residual = static_cast<float>(config.value_residual);
  return model;
}

class GpuSteps : public StepEngine {
 public:
  GpuSteps(const ModelConfig& config, const ModelParameters& parameters, const KeyCaches& caches,
           Device device, const DecoderOptions& options)
      : sequences_(static_cast<size_t>(options.streams)),
        rotation_(decoded(config, options), device),
        steps_(decode_model(config, parameters, caches, rotation_), device.index, options.streams,
               options.gpu_schedule) {}

  Tensor step(std::span<const uint8_t> previous, std::span<const int64_t> positions) override {
    for (size_t s = 0; s < sequences_.size(); ++s) {
      const bool rests = positions[s] < 0;
      sequences_[s] = {};
      sequences_[s].position = rests ? 0 : positions[s];
      sequences_[s].previous = s < previous.size() ? previous[s] : uint8_t{0};
      sequences_[s].count = rests ? 0 : 1;
    }
    const float* logits = steps_.step(sequences_);
    return Tensor(const_cast<float*>(logits), DType::f32,
                  {static_cast<int64_t>(sequences_.size()), kVocabulary});
  }

  void advance(std::span<const Continuation> continuations, int64_t steps, uint8_t* out) override {
    for (size_t s = 0; s < sequences_.size(); ++s) {
      const Continuation& c = continuations[s];
      sequences_[s] = {c.position,      c.previous,      c.count,  c.sampler.temperature,
                       c.sampler.top_p, c.sampler.top_k, c.origin, c.sampler.seed,
                       c.stream};
    }
    steps_.advance(sequences_, steps, out);
  }

 private:
  std::vector<DecodeSequence> sequences_;
  Rotation rotation_;
  cuda::DecodeSteps steps_;
};

}  // namespace

std::unique_ptr<StepEngine> make_gpu_steps(const ModelConfig& config, const ModelParameters& parameters,
                                           const KeyCaches& caches, Device device,
                                           const DecoderOptions& options) {
  return std::make_unique<GpuSteps>(config, parameters, caches, device, options);
}

int64_t gpu_steps_bytes(const ModelConfig& config, DType product, const DecoderOptions& options) {
  const int64_t positions = options.positions > 0 ? options.positions : config.context;
  const CachePlan plan = plan_caches(config, positions, product, options.exact_scores);
  return Rotation::bytes(decoded(config, options), {DeviceKind::cuda, 0}) +
         cuda::DecodeSteps::bytes(
             {config.layers, config.heads, config.qk_head(), config.v_head(), config.ff(),
              static_cast<int64_t>(plan.stores.size()), product, config.rotary() || config.qk_norm,
              config.mixes_values(), config.convolves()},
             options.streams);
}

}  // namespace longstride
