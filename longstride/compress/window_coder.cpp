#include "longstride/compress/window_coder.h"

#include <algorithm>

#include "longstride/base/checksum.h"
#include "longstride/base/rng.h"
#include "longstride/compress/frequencies.h"
#include "longstride/compress/range_coder.h"

namespace longstride {

namespace {

class OfDecoder final : public Predictor {
 public:
  explicit OfDecoder(Decoder& decoder)
      : decoder_(decoder),
        previous_(static_cast<size_t>(decoder.streams())),
        positions_(static_cast<size_t>(decoder.streams())) {}
  int64_t streams() const override { return decoder_.streams(); }
  int64_t positions() const override { return decoder_.positions(); }
  int64_t context() const override { return decoder_.config().context; }
  Tensor step(std::span<const uint8_t> previous, int64_t position) override {
    std::copy(previous.begin(), previous.end(), previous_.begin());
    std::fill(positions_.begin(), positions_.end(), Decoder::kRests);
    std::fill_n(positions_.begin(), previous.size(), position);
    return decoder_.step(previous_, positions_);
  }

 private:
  Decoder& decoder_;
  std::vector<uint8_t> previous_;   // (streams)
  std::vector<int64_t> positions_;  // (streams)
};

}  // namespace

WindowCoder::WindowCoder(Decoder& decoder)
    : of_decoder_(std::make_unique<OfDecoder>(decoder)), predictor_(of_decoder_.get()) {}

template <class Byte, class Visit>
void WindowCoder::walk(std::span<Byte> data, const CodingProgress& progress, Visit&& visit) {
  const int64_t streams = predictor_->streams(), context = predictor_->context(), size = std::ssize(data);
  for (int64_t begin = 0; begin < size; begin += streams * context) {
    // The first window is the longest.
    for (int64_t position = 0; position < std::min(context, size - begin); ++position) {
      previous_.clear();
      for (int64_t at = begin + position; at < size && std::ssize(previous_) < streams; at += context)
        previous_.push_back(position > 0 ? data[at - 1] : uint8_t{0});
      const Tensor logits = predictor_->step(previous_, position);
      const int64_t done = std::ssize(previous_);
      for (int64_t s = 0; s < done; ++s)
        visit(std::span<const float>(logits.as<float>() + s * kVocabulary, size_t{kVocabulary}),
              data[begin + s * context + position]);
      if (progress) progress(done);
    }
  }
}

Code WindowCoder::encode(std::span<const uint8_t> data, const CodingProgress& progress) {
  RangeEncoder encoder;
  Code code;
  walk(data, progress, [&](std::span<const float> logits, uint8_t byte) {
    const Frequencies frequencies(logits);
    encoder.encode(frequencies.start(byte), frequencies.of(byte));
    code.bits += bits_of(logits, byte);
  });
  code.bytes = encoder.finish();
  return code;
}

void WindowCoder::decode(std::span<const uint8_t> code, std::span<uint8_t> data,
                         const CodingProgress& progress) {
  RangeDecoder decoder(code);
  walk(data, progress, [&](std::span<const float> logits, uint8_t& byte) {
    const Frequencies frequencies(logits);
    byte = frequencies.byte_at(decoder.target());
    decoder.consume(frequencies.start(byte), frequencies.of(byte));
  });
}

std::string WindowCoder::probe() {
  const int64_t streams = predictor_->streams(),
                positions = std::min(kProbePositions, predictor_->positions());
  Checksum checksum;
  for (int64_t position = 0; position < positions; ++position) {
    previous_.clear();
    for (int64_t s = 0; s < streams; ++s)
      previous_.push_back(static_cast<uint8_t>(
          philox({static_cast<uint32_t>(position), static_cast<uint32_t>(s), 0, 0}, 0)[0]));
    const Tensor logits = predictor_->step(previous_, position);
    // Only the frequencies change the code, but a difference shows sooner in the last bits of the logits.
    checksum.update(logits.data, logits.bytes());
    for (int64_t s = 0; s < streams; ++s) {
      const Frequencies frequencies({logits.as<float>() + s * kVocabulary, size_t{kVocabulary}});
      for (int byte = 0; byte < kVocabulary; ++byte) {
        const uint32_t start = frequencies.start(byte);
        checksum.update(&start, sizeof start);
      }
    }
  }
  return checksum.hex().substr(0, 16);
}

}  // namespace longstride
