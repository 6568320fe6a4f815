// Compares decoding, one byte after another, with the scalar model in double precision, which sees whole
// sequences. Also checks the equalities that sampling relies on.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "longstride/base/rng.h"
#include "longstride/decode/decoder.h"
#include "longstride/ops/adam.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/model_cases.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

// A model with its weights on one device, and the bytes that it decodes.
class Subject {
 public:
  Subject(Device device, const ModelCase& c, uint64_t seed)
      : device_(device), case_(c), table_(parameter_table(c.config)), weights_(table_, device, DType::f32) {
    given_ = random_weights(c.config, table_, weights_, seed);
    if (c.product != DType::f32)
      products_ = ParameterStore(table_, device, c.product, ParameterStore::Which::products);
    for (size_t i = 0; i < table_.size(); ++i)
      if (!products_.empty() && products_[i]) run({device, nullptr}, Convert{weights_[i], products_[i]});
    parameters_ = by_role(c.config, weights_, products_);
    tokens_ = random_bytes(static_cast<uint32_t>(seed), c.batch * context(), kVocabulary);
  }

  int64_t context() const { return case_.config.context; }
  int64_t streams() const { return case_.batch; }

  std::unique_ptr<Decoder> decoder(DecodeSchedule schedule) const { return decoder(schedule, streams()); }
  std::unique_ptr<Decoder> decoder(DecodeSchedule schedule, int64_t streams) const {
    return std::make_unique<Decoder>(
        case_.config, parameters_, device_,
        DecoderOptions{.streams = streams, .positions = context(), .gpu_schedule = schedule});
  }

  std::span<const uint8_t> sequence(int64_t s) const {
    return std::span(tokens_).subspan(static_cast<size_t>(s * context()), static_cast<size_t>(context()));
  }

  // (S, N, 256), computed by the scalar model with products of this type.
  template <class T>
  std::vector<T> reference_logits(DType products) const {
    const reference::Parameters<T> converted = as<T>(given_);
    reference::Model<T> model(case_.config, converted, {.batch = streams(), .products = products});
    model.forward(tokens_);
    return model.logits();
  }

  // The same for sequences first, first + 1, ..., decoded side by side. The first `prefilled` bytes of each
  // are its prime; the rows of their positions stay 0.
  Floats decoded_logits(Decoder& decoder, int64_t first, int64_t prefilled) const {
    const int64_t count = decoder.streams();
    Floats logits(static_cast<size_t>(count * context() * kVocabulary));
    if (prefilled > 0)
      for (int64_t s = 0; s < count; ++s)
        decoder.prefill(s, sequence(first + s).first(static_cast<size_t>(prefilled)));
    Bytes previous(static_cast<size_t>(count));
    for (int64_t position = prefilled; position < context(); ++position) {
      for (int64_t s = 0; s < count && position > 0; ++s) previous[s] = sequence(first + s)[position - 1];
      const Tensor row = decoder.step(previous, position);
      for (int64_t s = 0; s < count; ++s)
        std::copy_n(row.as<float>() + s * kVocabulary, kVocabulary,
                    logits.begin() + (s * context() + position) * kVocabulary);
    }
    return logits;
  }

 private:
  Device device_;
  ModelCase case_;
  std::vector<ParameterSpec> table_;
  ParameterStore weights_, products_;
  ModelParameters parameters_;
  reference::Parameters<float> given_;
  Bytes tokens_;
};

// Draws as many bytes as the context has, in two calls, and one by one from the logits of each step.
void check_draws(const Subject& subject, DecodeSchedule schedule, const std::string& name,
                 CheckList& checks) {
  const int64_t streams = subject.streams(), count = subject.context(), half = (count + 1) / 2;
  const auto at_once = subject.decoder(schedule), by_steps = subject.decoder(schedule);
  std::vector<Continuation> all(static_cast<size_t>(streams));
  for (int64_t s = 0; s < streams; ++s)
    all[s].draw = {{.temperature = s == 1 ? 0.0 : 0.8, .top_k = 200, .top_p = 0.95, .seed = 11},
                   static_cast<uint32_t>(s),
                   1000 * s};
  Bytes drawn(static_cast<size_t>(streams * count)), part(static_cast<size_t>(streams * half));
  for (int64_t from = 0; from < count; from += half) {
    const int64_t steps = std::min(half, count - from);
    for (int64_t s = 0; s < streams; ++s) {
      all[s].position = from, all[s].count = steps;
      if (from > 0) all[s].previous = drawn[s * count + from - 1];
    }
    at_once->advance(all, steps, std::span(part).first(static_cast<size_t>(streams * steps)));
    for (int64_t s = 0; s < streams; ++s)
      std::copy_n(part.begin() + s * steps, steps, drawn.begin() + s * count + from);
  }
  Bytes stepped(drawn.size()), previous(static_cast<size_t>(streams));
  for (int64_t position = 0; position < count; ++position) {
    const Tensor logits = by_steps->step(previous, position);
    for (int64_t s = 0; s < streams; ++s) {
      const Draw& d = all[s].draw;
      previous[s] = stepped[s * count + position] =
          draw({logits.as<float>() + s * kVocabulary, size_t{kVocabulary}}, d.sampler, d.stream,
               d.origin + position);
    }
  }
  checks.require(name + ": bytes drawn at once and one by one", drawn == stepped);
}

void check_case(Device device, const ModelCase& c, uint64_t seed, CheckList& checks) {
  const Subject subject(device, c, seed);
  const std::vector<double> truth = subject.reference_logits<double>(DType::f32);
  const Floats naive = subject.reference_logits<float>(c.product);
  std::vector<std::pair<DecodeSchedule, std::string>> schedules{{DecodeSchedule::fastest, ""}};
  if (device.kind == DeviceKind::cuda)
    schedules = {{DecodeSchedule::persistent, ", one kernel"}, {DecodeSchedule::graph, ", a graph"}};
  for (const auto& [schedule, how] : schedules) {
    const std::string name = "decode " + c.name() + how;
    const auto together = subject.decoder(schedule);
    const Floats logits = subject.decoded_logits(*together, 0, 0);
    checks.compare(name + ": logits", logits, naive, truth);
    const auto alone = subject.decoder(schedule, 1);
    const int64_t last = subject.streams() - 1, row = subject.context() * kVocabulary;
    checks.same_bits(name + ": bits alone and beside others", subject.decoded_logits(*alone, last, 0),
                     std::span(logits).subspan(static_cast<size_t>(last * row)));
    check_draws(subject, schedule, name, checks);

    const int64_t prefilled = subject.context() / 2;
    if (prefilled == 0) continue;
    const auto begun = subject.decoder(schedule);
    const Floats after = subject.decoded_logits(*begun, 0, prefilled);
    Floats ours, plain;
    std::vector<double> expected;
    for (int64_t s = 0; s < subject.streams(); ++s)
      for (int64_t i = s * row + prefilled * kVocabulary; i < (s + 1) * row; ++i) {
        ours.push_back(after[i]);
        plain.push_back(naive[i]);
        expected.push_back(truth[i]);
      }
    checks.compare(name + ": logits after a beginning", ours, plain, expected);
  }
}

}  // namespace

std::vector<Check> check_decode(Device device, Effort effort) {
  CheckList checks;
  uint64_t seed = 1;
  for (ModelCase c : model_cases(effort)) {
    check_case(device, c, seed++, checks);
    if (device.kind == DeviceKind::cpu || c.product != DType::bf16) continue;
    c.product = DType::f16;
    check_case(device, c, seed - 1, checks);
  }
  return checks.take();
}

}  // namespace longstride::verify
