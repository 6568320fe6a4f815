#include <algorithm>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/decode/decoder.h"
#include "longstride/facade/model_state.h"
#include "longstride/longstride.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/gpu_room.h"
#include "longstride/sample/generate.h"
#include "longstride/sample/job.h"
#include "longstride/sample/prime.h"

namespace longstride {

namespace {

constexpr int64_t kGpuSteps = 64;  // that a GPU takes at a time

}  // namespace

// The bytes are those that `longstride sample` draws with the same options.
struct GenerationState {
  std::shared_ptr<const ModelState> model;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<Generator> generator;
  int64_t given = 0;  // bytes of the sequence that have been handed out, or were given
};

Generation::Generation(std::unique_ptr<GenerationState> state) : state_(std::move(state)) {}
Generation::~Generation() = default;
Generation::Generation(Generation&&) noexcept = default;
Generation& Generation::operator=(Generation&&) noexcept = default;

std::optional<uint8_t> Generation::next() {
  current_.reset();
  if (state_ == nullptr) return {};  // it was moved from
  const Sequence& sequence = state_->generator->sequences()[0];
  if (state_->given == sequence.length) return {};
  if (state_->given == sequence.known()) {
    const AtWork work = state_->model->at_work();
    state_->generator->advance(state_->decoder->device().kind == DeviceKind::cpu ? 1 : kGpuSteps);
  }
  current_ = sequence.bytes[static_cast<size_t>(state_->given++)];
  return current_;
}

Generation::Iterator Generation::begin() {
  next();
  return Iterator(this);
}

Generation Model::generate(std::span<const uint8_t> beginning, const GenerateOptions& options) const {
  const ModelConfig& config = state_->config();
  const LoadedModel& loaded = state_->loaded;
  const bool picture = kind() == "image";
  LONGSTRIDE_CHECK(options.count >= 0, "count = {} bytes to draw, must not be negative", options.count);
  const SamplerConfig sampler{options.temperature, options.top_k, options.top_p, options.seed};
  sampler.check();
  const Windows windows = windows_of(config, options.hop);
  std::vector<uint8_t> prime(beginning.begin(), beginning.end());
  LONGSTRIDE_CHECK(!picture || std::ssize(prime) < config.context,
                   "a picture has {} bytes, and {} are given: there is nothing left to draw", config.context,
                   prime.size());
  constexpr int64_t kMost = int64_t{1} << 50;
  LONGSTRIDE_CHECK(options.count <= kMost, "count = {} bytes to draw, at most {} can be", options.count,
                   kMost);
  const int64_t wanted = options.count > 0 ? std::ssize(prime) + options.count : config.context;
  prime = end_of_prime(std::move(prime), wanted, windows);
  const int64_t count = options.count > 0 ? options.count : config.context - std::ssize(prime);
  const int64_t length = std::ssize(prime) + count;
  LONGSTRIDE_CHECK(!picture || length <= config.context,
                   "a picture has {} bytes, {} given and {} to draw are more", config.context, prime.size(),
                   count);

  const AtWork work = state_->at_work();
  auto state = std::make_unique<GenerationState>();
  state->model = state_;
  state->given = std::ssize(prime);
  Session session;
  session.sequences = {sequence_after(std::move(prime), length, sampler, 0)};
  const SampleDecoder decoder = plan_decoder(loaded, session, windows, 1);
  check_gpu_room(loaded.device(), decoder.bytes, "generating", "use the device cpu");
  check_cpu_room(loaded.device(), decoder.bytes, "generating", "give a shorter beginning or a smaller count");
  state->decoder = std::make_unique<Decoder>(config, loaded.parameters(), loaded.device(), decoder.options,
                                             loaded.quantized());
  state->generator = std::make_unique<Generator>(*state->decoder, std::move(session.sequences), windows);
  return Generation(std::move(state));
}

}  // namespace longstride
