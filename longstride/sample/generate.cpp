#include "longstride/sample/generate.h"

#include <algorithm>

namespace longstride {

std::vector<std::vector<uint8_t>> generate(Decoder& decoder, const std::vector<uint8_t>& prime,
                                           const GenerateConfig& config, const SampleSink& sink) {
  config.sampler.check();
  LONGSTRIDE_CHECK(
      config.length >= 1 && config.length <= decoder.context(),
      "a sample of {} bytes: the model's context is the limit for now, so 1 to {} bytes are possible",
      config.length, decoder.context());
  const int64_t streams = decoder.streams();
  const int64_t given = std::min<int64_t>(prime.size(), config.length);
  std::vector<std::vector<uint8_t>> sequences(streams);
  for (auto& sequence : sequences) sequence.reserve(config.length);

  bool more = true;
  const auto emit = [&](int64_t stream, int64_t position, uint8_t byte) {
    sequences[stream].push_back(byte);
    if (sink && !sink(stream, position, byte)) more = false;
  };
  for (int64_t position = 0; position < given && more; ++position)
    for (int64_t s = 0; s < streams; ++s) emit(s, position, prime[position]);
  if (!more || given == config.length) return sequences;

  if (given > 0) {
    std::vector<uint8_t> beginnings;
    for (int64_t s = 0; s < streams; ++s)
      beginnings.insert(beginnings.end(), prime.begin(), prime.begin() + given);
    decoder.prefill(Tensor(beginnings.data(), DType::u8, {streams, given}));
  }
  std::vector<uint8_t> previous(streams);
  for (int64_t position = given; position < config.length && more; ++position) {
    for (int64_t s = 0; s < streams && position > 0; ++s) previous[s] = sequences[s].back();
    const Tensor logits = decoder.step(previous, position);
    const float* rows = logits.as<float>();
    for (int64_t s = 0; s < streams; ++s) {
      const std::span<const float> row(rows + s * kVocabulary, kVocabulary);
      emit(s, position, draw(row, config.sampler, config.first_stream + static_cast<uint32_t>(s), position));
    }
  }
  return sequences;
}

int64_t streams_that_fit(const ModelConfig& config, Device device, DType product, int64_t count,
                         int64_t memory) {
  int64_t streams =
      std::max<int64_t>(1, std::min(count, memory / Decoder::bytes(config, device, product, 1)));
  while (streams > 1 && Decoder::bytes(config, device, product, streams) > memory) --streams;
  return streams;
}

}  // namespace longstride
