#include "longstride/compress/window_coder.h"

#include <algorithm>

#include "longstride/base/checksum.h"
#include "longstride/base/rng.h"
#include "longstride/compress/frequencies.h"
#include "longstride/compress/range_coder.h"

namespace longstride {

WindowCoder::WindowCoder(Decoder& decoder)
    : decoder_(decoder),
      previous_(static_cast<size_t>(decoder.streams())),
      positions_(static_cast<size_t>(decoder.streams())) {}

template <class Byte, class Visit>
void WindowCoder::walk(std::span<Byte> data, const CodingProgress& progress, Visit&& visit) {
  const int64_t streams = decoder_.streams(), context = decoder_.config().context, size = std::ssize(data);
  for (int64_t begin = 0; begin < size; begin += streams * context) {
    // The first window is the longest.
    for (int64_t position = 0; position < std::min(context, size - begin); ++position) {
      for (int64_t s = 0; s < streams; ++s) {
        const int64_t at = begin + s * context + position;
        positions_[s] = at < size ? position : Decoder::kRests;
        previous_[s] = position > 0 && at < size ? data[at - 1] : uint8_t{0};
      }
      const Tensor logits = decoder_.step(previous_, positions_);
      int64_t done = 0;
      for (; done < streams && positions_[done] == position; ++done)
        visit(std::span<const float>(logits.as<float>() + done * kVocabulary, size_t{kVocabulary}),
              data[begin + done * context + position]);
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
  const int64_t streams = decoder_.streams(), positions = std::min(kProbePositions, decoder_.positions());
  Checksum checksum;
  for (int64_t position = 0; position < positions; ++position) {
    for (int64_t s = 0; s < streams; ++s) {
      const auto word = static_cast<uint32_t>(position);
      previous_[s] = static_cast<uint8_t>(philox({word, static_cast<uint32_t>(s), 0, 0}, 0)[0]);
      positions_[s] = position;
    }
    const Tensor logits = decoder_.step(previous_, positions_);
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
