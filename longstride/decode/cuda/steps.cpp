// Decoding on a GPU: what goes to and fro, and which schedule a step takes. Bytes are drawn there, many steps
// at a time.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/decode/cuda/launch.h"
#include "longstride/decode/cuda/model.h"
#include "longstride/decode/engine.h"
#include "longstride/device/backend.h"
#include "longstride/device/cuda.h"
#include "longstride/device/staging.h"
#include "longstride/model/rotary.h"

namespace longstride {

namespace cuda {

using namespace decode;

namespace {

// Steps of one call of the GPU: bytes drawn wait there until all are done.
constexpr int64_t kMostSteps = 256;

// Up to here one persistent kernel is faster than a graph: measured for the model of configs/enwik8.toml on
// an H100, in docs/sampling.md.
constexpr int64_t kFewSequences = 3;

// The angles of the positions that are decoded; empty for models that are not rotary.
class RotationTable {
 public:
  RotationTable(const ModelConfig& seen, Device device)
      : arena_(device, bytes(seen, device)), table_(allocate_rotation(seen, seen.context, arena_)) {
    fill_rotation(seen, table_);
  }
  static int64_t bytes(const ModelConfig& seen, Device device) {
    Arena measure = Arena::measuring(device);
    allocate_rotation(seen, seen.context, measure);
    return measure.peak();
  }
  const Tensor& table() const { return table_; }

 private:
  Arena arena_;
  Tensor table_;
};

template <class T>
void upload(const std::vector<T>& from, const T* to) {
  copy(const_cast<T*>(to), from.data(), static_cast<int64_t>(from.size() * sizeof(T)));
}

// What goes to and fro in one piece of memory: sequences up; logits or bytes, and faults, down.
struct Exchange {
  int64_t sequences, fault, logits, out, bytes;
  explicit Exchange(int64_t streams) {
    sequences = 0;
    fault = (streams * static_cast<int64_t>(sizeof(Sequence)) + 63) / 64 * 64;
    logits = fault + 64;
    out = logits + streams * kVocabulary * static_cast<int64_t>(sizeof(float));
    bytes = out + streams * kMostSteps;
  }
};

class Steps : public StepEngine {
 public:
  Steps(Device device, const EngineParts& parts, const DecoderOptions& options)
      : rotation_(parts.config.shortened(options.positions), device),
        described_(describe(parts, rotation_.table(), options.streams)),
        place_(options.streams),
        arena_(Arena::measuring(device)),
        streams_(options.streams),
        continuations_(static_cast<size_t>(options.streams)) {
    Args& a = described_.args;
    lay_out(a, described_.product, arena_);
    arena_ = Arena(device, arena_.peak());
    lay_out(a, described_.product, arena_);
    upload(described_.layers, a.layers);
    upload(described_.heads, a.heads);
    upload(described_.stores, a.stores);
    exchange_ = Staging(device, place_.bytes);
    char* const there = static_cast<char*>(exchange_.device());
    a.sequences = reinterpret_cast<Sequence*>(there + place_.sequences);
    a.fault = reinterpret_cast<int32_t*>(there + place_.fault);
    a.logits = reinterpret_cast<float*>(there + place_.logits);
    a.out = reinterpret_cast<uint8_t*>(there + place_.out);
    a.out_stride = kMostSteps;
    const DecodeSchedule schedule = options.gpu_schedule;
    if (schedule == DecodeSchedule::persistent ||
        (schedule == DecodeSchedule::fastest && streams_ <= kFewSequences))
      blocks_ = persistent_blocks(described_.product, a);
    LONGSTRIDE_CHECK(schedule != DecodeSchedule::persistent || blocks_ > 0,
                     "decoding {} sequences by one kernel: this GPU does so for up to {}", streams_,
                     most_fused());
  }

  static int64_t bytes(const ModelConfig& config, DType product, const DecoderOptions& options) {
    const Device device{DeviceKind::cuda, 0};
    const CachePlan plan = plan_caches(config, options.positions, product, options.exact_scores);
    Args args = args_of(config, static_cast<int64_t>(plan.stores.size()), options.streams);
    Arena measure = Arena::measuring(device);
    lay_out(args, product, measure);
    return RotationTable::bytes(config.shortened(options.positions), device) + measure.peak() +
           Exchange(options.streams).bytes;
  }

  Tensor step(std::span<const uint8_t> previous, std::span<const int64_t> positions) override {
    for (size_t s = 0; s < continuations_.size(); ++s) {
      const bool rests = positions[s] < 0;
      continuations_[s] = {.position = rests ? 0 : positions[s],
                           .previous = s < previous.size() ? previous[s] : uint8_t{0},
                           .count = rests ? 0 : 1};
    }
    run(1, false);
    exchange_.download(place_.logits, place_.out - place_.logits);
    exchange_.wait();
    return Tensor(host<float>(place_.logits), DType::f32, {streams_, kVocabulary});
  }

  void advance(std::span<const Continuation> continuations, int64_t steps, uint8_t* out) override {
    continuations_.assign(continuations.begin(), continuations.end());
    for (int64_t done = 0; done < steps; done += kMostSteps) {
      const int64_t part = std::min(steps - done, kMostSteps);
      run(part, true);
      exchange_.download(place_.fault, sizeof(int32_t));
      exchange_.download(place_.out, place_.bytes - place_.out);
      exchange_.wait();
      const int32_t fault = *host<int32_t>(place_.fault);
      LONGSTRIDE_CHECK(fault == 0,
                       "sequence {}: the model's logits are not finite: its weights are damaged, or training "
                       "diverged",
                       fault - 1);
      for (size_t i = 0; i < continuations_.size(); ++i) {
        Continuation& c = continuations_[i];
        const int64_t drawn = std::min(c.count, part);
        if (drawn <= 0) continue;
        const uint8_t* from = host<uint8_t>(place_.out) + static_cast<int64_t>(i) * kMostSteps;
        std::copy_n(from, drawn, out + static_cast<int64_t>(i) * steps + done);
        c.previous = from[drawn - 1];
        c.position += drawn, c.count -= drawn;
      }
    }
  }

 private:
  template <class T>
  T* host(int64_t at) const {
    return reinterpret_cast<T*>(static_cast<char*>(exchange_.host()) + at);
  }

  // Tells the GPU where the sequences stand and runs so many steps.
  void run(int64_t steps, bool draws) {
    Sequence* const to = host<Sequence>(place_.sequences);
    for (size_t i = 0; i < continuations_.size(); ++i) {
      const Continuation& c = continuations_[i];
      to[i] = {.draw = c.draw,
               .position = static_cast<int32_t>(c.position),
               .left = static_cast<int32_t>(std::min(c.count, steps)),
               .drawn = 0,
               .previous = c.previous};
    }
    *host<int32_t>(place_.fault) = 0;
    exchange_.upload(0, place_.logits);
    if (blocks_ > 0)
      return launch_persistent(described_.product, described_.args, blocks_, static_cast<int>(steps), draws);
    launch_prepare(described_.product, described_.args);
    std::unique_ptr<Graph>& graph = draws ? drawing_ : plain_;
    if (graph == nullptr)
      graph = backend(DeviceKind::cuda).record([&] {
        launch_stages(described_.product, described_.args, draws);
      });
    for (int64_t step = 0; step < steps; ++step) graph->launch();
  }

  RotationTable rotation_;
  Described described_;
  Exchange place_;
  Arena arena_;
  Staging exchange_;
  int64_t streams_;
  std::vector<Continuation> continuations_;  // of the present call
  int blocks_ = 0;                           // of the persistent kernel; 0: graphs
  std::unique_ptr<Graph> plain_, drawing_;
};

}  // namespace

}  // namespace cuda

template <>
std::unique_ptr<StepEngine> make_steps_on<DeviceKind::cuda>(Device device, const EngineParts& parts,
                                                            const DecoderOptions& options) {
  return std::make_unique<cuda::Steps>(device, parts, options);
}

template <>
int64_t steps_bytes_on<DeviceKind::cuda>(const ModelConfig& config, DType product,
                                         const DecoderOptions& options) {
  return cuda::Steps::bytes(config, product, options);
}

}  // namespace longstride
