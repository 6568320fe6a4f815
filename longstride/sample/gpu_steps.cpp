#include "longstride/sample/gpu_steps.h"

#include "longstride/base/check.h"

namespace longstride {

namespace {

DecodeModel decode_model(const ModelParameters& parameters, const KeyCaches& caches) {
  DecodeModel model;
  model.embedding = parameters.embedding;
  for (int64_t i = 0; i < caches.layers(); ++i) {
    const BlockParameters& p = parameters.blocks[static_cast<size_t>(i)];
    model.layers.push_back({p.norm1_gain, p.norm1_bias, p.qkv_weight, p.qkv_bias, p.projection_weight,
                            p.projection_bias, p.norm2_gain, p.norm2_bias, p.up_weight, p.up_bias,
                            p.down_weight, p.down_bias, caches.layer(i)});
  }
  model.final_gain = parameters.final_gain, model.final_bias = parameters.final_bias;
  model.output_weight = parameters.output_weight;
  model.epsilon = kNormEpsilon, model.final_epsilon = kFinalNormEpsilon;
  return model;
}

class GpuSteps : public StepEngine {
 public:
  GpuSteps(const ModelParameters& parameters, const KeyCaches& caches, Device device, int64_t streams,
           DecodeSchedule schedule)
      : sequences_(static_cast<size_t>(streams)),
        steps_(decode_model(parameters, caches), device.index, streams, schedule) {}

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
  cuda::DecodeSteps steps_;
};

}  // namespace

std::unique_ptr<StepEngine> make_gpu_steps(const ModelConfig& config, const ModelParameters& parameters,
                                           const KeyCaches& caches, Device device,
                                           const DecoderOptions& options) {
  LONGSTRIDE_CHECK(!config.rotary() && !config.qk_norm,
                   "decoding on a GPU does not know model.positions = \"rotary\" and model.qk_norm yet; use "
                   "--device cpu");
  return std::make_unique<GpuSteps>(parameters, caches, device, options.streams, options.gpu_schedule);
}

int64_t gpu_steps_bytes(const ModelConfig& config, DType product, const DecoderOptions& options) {
  const int64_t positions = options.positions > 0 ? options.positions : config.context;
  const CachePlan plan = plan_caches(config, positions, product, options.exact_scores);
  return cuda::DecodeSteps::bytes({config.layers, config.heads, config.qk_head(), config.v_head(),
                                   config.ff(), static_cast<int64_t>(plan.stores.size()), product},
                                  options.streams);
}

}  // namespace longstride
